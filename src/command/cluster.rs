//! `gristmill cluster`: all roles as processes of this machine, and what a running cluster consists of. A role that ends
//! is started again, for as long as this process runs.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use engine::cluster::{ClusterAddress, ClusterClient};
use engine::{Error, Result};

use super::Console;
use crate::args::{ClusterAction, ClusterStartArgs, CommonArgs, OutputArgs};
use crate::diagnostic::Exit;
use crate::progress::Voice;

/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a process may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// The pause before a role that has ended is started again. It doubles while the role does not last.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const LASTS: Duration = Duration::from_secs(60);

pub(super) fn cluster(common: &CommonArgs, action: ClusterAction) -> Result<Exit> {
    match action {
        ClusterAction::Start(args) => {
            start(&Console::new(common, &OutputArgs::default(), Voice::Outcomes)?, common, &args)
        }
        ClusterAction::Executors { output } => executors(&Console::new(common, &output, Voice::Outcomes)?),
    }
}

fn executors(console: &Console) -> Result<Exit> {
    let client = console.cluster()?;
    let printer = console.printer()?;
    let listed = console.wait(async {
        let rows: Vec<Vec<Option<String>>> = (client.executors().await?.into_iter())
            .map(|executor| {
                let place = format!("{}:{}", executor.host, executor.port);
                let seen = format!("{} s ago", executor.last_seen_seconds);
                [executor.id, place, executor.cores.to_string(), seen].into_iter().map(Some).collect()
            })
            .collect();
        printer.print_strings(&["executor", "address", "cores", "last_seen"], &rows).await
    });
    match listed {
        Ok(()) => console.commit(printer).map(|()| Exit::Ok),
        Err(error) => Ok(console.fail(&error)),
    }
}

fn start(console: &Console, common: &CommonArgs, args: &ClusterStartArgs) -> Result<Exit> {
    if args.executors == 0 {
        return Err(Error::Usage("--executors: expected a whole number above 0, got `0`".to_string()));
    }
    let given = given(common);
    let mut roles = Roles(Vec::new());
    let address = roles.scheduler(console, &given, args)?;
    let cores = args.cores.unwrap_or((console.config.options.threads / args.executors).max(1));
    let memory = args.memory.clone().or_else(|| memory_share(args.executors));
    for number in 1..=args.executors {
        let mut own = given.clone();
        own.extend(["--cores".to_string(), cores.to_string()]);
        own.extend(memory.iter().flat_map(|memory| ["--memory".to_string(), memory.clone()]));
        roles.executor(&format!("executor-{number}"), &address, own, args)?;
    }
    console.wait(roles.ready(&address, args.executors))?;
    console.remark(&format!("{} executors of {cores} cores each; Ctrl-C stops all", args.executors));
    console.remark(&format!("  gristmill run job.sql --cluster {address}"));
    console.remark(&format!("  {}/api/v1/executors", address.http_url()));
    let stop = console.interrupt.token();
    console.wait(async {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => roles.mend(|text| console.display.line(text)),
            }
        }
    });
    Ok(Exit::Ok)
}

/// What was said of the session counts for every role.
fn given(common: &CommonArgs) -> Vec<String> {
    let pairs = [
        ("--memory-limit", &common.memory_limit),
        ("--threads", &common.threads),
        ("--warehouse", &common.warehouse),
        ("--kernel", &common.kernel),
        ("--color", &common.color),
    ];
    let mut given: Vec<String> = (pairs.into_iter())
        .filter_map(|(flag, value)| Some([flag.to_string(), value.clone()?]))
        .chain(common.set.iter().map(|setting| ["--set".to_string(), setting.clone()]))
        .flatten()
        .collect();
    given.extend((0..common.verbose).map(|_| "-v".to_string()));
    given
}

const SCHEDULER: &str = "scheduler";

/// Processes that end with this one.
struct Roles(Vec<Role>);

/// One process, and how to start it again.
struct Role {
    name: String,
    arguments: Vec<String>,
    /// `None` while it waits to be started again.
    child: Option<Child>,
    begun: Instant,
    pause: Duration,
}

impl Role {
    fn new(name: &str, arguments: Vec<String>, child: Child) -> Self {
        Role { name: name.to_string(), arguments, child: Some(child), begun: Instant::now(), pause: Duration::ZERO }
    }

    fn spawn(name: &str, arguments: &[String], stderr: Stdio) -> Result<Child> {
        let child = program()?.args(arguments).stderr(stderr).spawn();
        child.map_err(|error| Error::Cluster(format!("{name} cannot be started: {error}")))
    }

    /// How it has ended, the first time that this is asked.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())?;
        self.child = None;
        self.pause = if self.begun.elapsed() > LASTS { PAUSE } else { (self.pause * 2).clamp(PAUSE, PAUSE_MAX) };
        self.begun = Instant::now();
        Some(status)
    }

    /// Starts it again when its pause is over.
    fn mend(&mut self, tell: impl Fn(&str)) {
        if let Some(status) = self.ended() {
            let seconds = self.pause.as_secs();
            tell(&format!("{} has ended ({status}); it is started again in {seconds} s", self.name));
        }
        if self.child.is_none() && self.begun.elapsed() >= self.pause {
            self.begun = Instant::now();
            match Self::spawn(&self.name, &self.arguments, Stdio::inherit()) {
                Ok(child) => self.child = Some(child),
                Err(error) => tell(&error.to_string()),
            }
        }
    }
}

impl Roles {
    /// Starts the scheduler and reads from its first line where it listens.
    fn scheduler(&mut self, console: &Console, given: &[String], args: &ClusterStartArgs) -> Result<ClusterAddress> {
        let arguments = |bind: &str| {
            let mut arguments = vec![SCHEDULER.to_string(), "--bind".to_string(), bind.to_string()];
            if let Some(directory) = &args.state_dir {
                arguments.extend(["--state-dir".to_string(), directory.display().to_string()]);
            }
            arguments.extend_from_slice(given);
            arguments
        };
        let mut child = Role::spawn(SCHEDULER, &arguments(&args.bind), Stdio::piped())?;
        let stderr = child.stderr.take().expect("stderr is piped");
        self.0.push(Role::new(SCHEDULER, Vec::new(), child));
        let mut lines = BufReader::new(stderr).lines();
        let mut first = String::new();
        for line in lines.by_ref().map_while(std::result::Result::ok) {
            first = line;
            if first.starts_with("scheduler at ") || first.starts_with("error: ") {
                break;
            }
            console.display.line(&first);
        }
        let Some(address) = first.strip_prefix("scheduler at ") else {
            let reason = first.strip_prefix("error: ").unwrap_or(&first);
            return Err(Error::Cluster(format!("the scheduler did not start: {reason}")));
        };
        let address: ClusterAddress = address.parse()?;
        // Started again it listens where it did, and says no more than what is wrong.
        let host = args.bind.rsplit_once(':').map_or(args.bind.as_str(), |(host, _)| host);
        self.0[0].arguments = arguments(&format!("{host}:{}", address.port()));
        if console.verbose == 0 {
            self.0[0].arguments.push("-q".to_string());
        }
        repeat(console, lines);
        Ok(address)
    }

    fn executor(
        &mut self,
        id: &str,
        address: &ClusterAddress,
        given: Vec<String>,
        args: &ClusterStartArgs,
    ) -> Result<()> {
        let address = address.to_string();
        let mut arguments: Vec<String> =
            ["executor", "--scheduler", &address, "--id", id].into_iter().map(str::to_string).collect();
        if let Some(directory) = &args.work_dir {
            arguments.extend(["--work-dir".to_string(), directory.display().to_string()]);
        }
        if !given.iter().any(|word| word == "-v") {
            arguments.push("-q".to_string());
        }
        arguments.extend(given);
        let child = Role::spawn(id, &arguments, Stdio::inherit())?;
        self.0.push(Role::new(id, arguments, child));
        Ok(())
    }

    /// Waits until all executors are known to the scheduler.
    async fn ready(&mut self, address: &ClusterAddress, executors: usize) -> Result<()> {
        let client = ClusterClient::new(address.clone());
        loop {
            if client.executors().await.is_ok_and(|known| known.len() >= executors) {
                return Ok(());
            }
            for role in &mut self.0 {
                if let Some(status) = role.ended() {
                    return Err(Error::Cluster(format!("{} did not start: {status}", role.name)));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn mend(&mut self, tell: impl Fn(&str)) {
        self.0.iter_mut().for_each(|role| role.mend(&tell));
    }
}

/// Says what the scheduler says, as its words.
fn repeat(console: &Console, lines: Lines<BufReader<ChildStderr>>) {
    let (display, quiet) = (console.display.clone(), console.voice == Voice::Quiet);
    std::thread::spawn(move || {
        for line in lines.map_while(std::result::Result::ok) {
            if !quiet {
                display.line(&format!("scheduler: {line}"));
            }
        }
    });
}

impl Drop for Roles {
    fn drop(&mut self) {
        // Executors first: they say good-bye to the scheduler.
        for child in self.0.iter().rev().filter_map(|role| role.child.as_ref()) {
            signal(child, libc::SIGTERM);
        }
        let begun = Instant::now();
        for child in self.0.iter_mut().filter_map(|role| role.child.as_mut()) {
            while begun.elapsed() < GRACE && !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// This program again, as a group of its own: Ctrl-C reaches this process, which ends the others in order.
fn program() -> Result<Command> {
    use std::os::unix::process::CommandExt;

    let path = std::env::current_exe()
        .map_err(|error| Error::Cluster(format!("the program cannot find itself to start it again: {error}")))?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).process_group(0);
    // SAFETY: prctl is safe to call between fork and exec; the child ends when this process is killed.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    Ok(command)
}

fn signal(child: &Child, signal: i32) {
    if let Ok(process) = i32::try_from(child.id()) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(process, signal) };
    }
}

/// Seven tenths of the machine's memory, shared out; `None` where it cannot be told.
fn memory_share(executors: usize) -> Option<String> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((kib * 1024 * 7 / 10 / executors as u64).to_string())
}
