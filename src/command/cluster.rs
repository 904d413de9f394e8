//! `gristmill cluster`: all roles as processes of this machine, and what a running cluster consists of.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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

pub(super) fn cluster(common: &CommonArgs, action: ClusterAction) -> Result<Exit> {
    match action {
        ClusterAction::Start(args) => start(&Console::new(common, &OutputArgs::default(), Voice::Outcomes)?, &args),
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

/// Processes that end with this one.
struct Roles(Vec<(String, Child)>);

fn start(console: &Console, args: &ClusterStartArgs) -> Result<Exit> {
    if args.executors == 0 {
        return Err(Error::Usage("--executors: expected a whole number above 0, got `0`".to_string()));
    }
    let mut roles = Roles(Vec::new());
    let address = roles.scheduler(args)?;
    let cores = args.cores.unwrap_or((console.config.options.threads / args.executors).max(1));
    let memory = args.memory.clone().or_else(|| memory_share(args.executors));
    for number in 1..=args.executors {
        roles.executor(number, &address, cores, memory.as_deref(), args)?;
    }
    console.wait(roles.ready(&address, args.executors))?;
    console.remark(&format!("{} executors of {cores} cores each; Ctrl-C stops all", args.executors));
    console.remark(&format!("  gristmill run job.sql --cluster {address}"));
    console.remark(&format!("  {}/api/v1/executors", address.http_url()));
    let stop = console.interrupt.token();
    let lost = console.wait(async {
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(role) = roles.ended() {
                return Some(role);
            }
        }
    });
    match lost {
        Some(role) if role == SCHEDULER => Err(Error::Cluster("the scheduler has ended".to_string())),
        Some(role) => Err(Error::Cluster(format!("every executor has ended, {role} last"))),
        None => Ok(Exit::Ok),
    }
}

const SCHEDULER: &str = "scheduler";

impl Roles {
    /// Starts the scheduler and reads from its first line where it listens.
    fn scheduler(&mut self, args: &ClusterStartArgs) -> Result<ClusterAddress> {
        let mut command = program()?;
        command.args(["scheduler", "--bind", &args.bind]).stderr(Stdio::piped());
        if let Some(directory) = &args.state_dir {
            command.arg("--state-dir").arg(directory);
        }
        let mut child =
            command.spawn().map_err(|error| Error::Cluster(format!("the scheduler cannot be started: {error}")))?;
        let stderr = child.stderr.take().expect("stderr is piped");
        self.0.push((SCHEDULER.to_string(), child));
        let mut lines = BufReader::new(stderr).lines();
        let first = lines.next().and_then(std::result::Result::ok).unwrap_or_default();
        let Some(address) = first.strip_prefix("scheduler at ") else {
            let reason = first.strip_prefix("error: ").unwrap_or(&first);
            return Err(Error::Cluster(format!("the scheduler did not start: {reason}")));
        };
        // What it says later belongs to this process's own messages.
        std::thread::spawn(move || {
            for line in lines.map_while(std::result::Result::ok) {
                tracing::warn!("scheduler: {line}");
            }
        });
        address.parse()
    }

    fn executor(
        &mut self,
        number: usize,
        address: &ClusterAddress,
        cores: usize,
        memory: Option<&str>,
        args: &ClusterStartArgs,
    ) -> Result<()> {
        let id = format!("executor-{number}");
        let mut command = program()?;
        command.args([
            "executor",
            "-q",
            "--scheduler",
            &address.to_string(),
            "--id",
            &id,
            "--cores",
            &cores.to_string(),
        ]);
        if let Some(memory) = memory {
            command.args(["--memory", memory]);
        }
        if let Some(directory) = &args.work_dir {
            command.arg("--work-dir").arg(directory);
        }
        let child = command.spawn().map_err(|error| Error::Cluster(format!("{id} cannot be started: {error}")))?;
        self.0.push((id, child));
        Ok(())
    }

    /// Waits until all executors are known to the scheduler.
    async fn ready(&mut self, address: &ClusterAddress, executors: usize) -> Result<()> {
        let client = ClusterClient::new(address.clone());
        loop {
            if client.executors().await.is_ok_and(|known| known.len() >= executors) {
                return Ok(());
            }
            for (role, child) in &mut self.0 {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(Error::Cluster(format!("{role} did not start: {status}")));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes out the processes that have ended; names one when the cluster cannot work any more.
    fn ended(&mut self) -> Option<String> {
        let mut last = None;
        self.0.retain_mut(|(role, child)| match child.try_wait() {
            Ok(Some(status)) => {
                tracing::warn!("{role} has ended: {status}");
                last = Some(role.clone());
                false
            }
            _ => true,
        });
        let executors = self.0.iter().filter(|(role, _)| role != SCHEDULER).count();
        last.filter(|role| role == SCHEDULER || executors == 0)
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        // Executors first: they say good-bye to the scheduler.
        for (_, child) in self.0.iter().rev() {
            signal(child, libc::SIGTERM);
        }
        let begun = std::time::Instant::now();
        for (_, child) in &mut self.0 {
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
