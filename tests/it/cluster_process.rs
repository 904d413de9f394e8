//! A real cluster for tests: `gristmill cluster start`, its scheduler and executors as processes, on free ports, in a
//! directory of its own. It ends with its value, and with the test process however that ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use engine::cluster::{ClusterAddress, ExecutorSettings};

/// How long a cluster may take to be ready on a machine that does much else.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Of an executor with one core that is this very program, with tasks of its own.
pub(crate) fn executor_settings(scheduler: &str, id: &str, host: &str) -> ExecutorSettings {
    ExecutorSettings {
        scheduler: scheduler.parse().unwrap(),
        id: Some(id.to_string()),
        bind: host.parse().unwrap(),
        advertise: host.to_string(),
        ports: (0, 0),
        gang_port: 0,
        cores: 1,
        memory: None,
        work_dir: None,
        give_up_after: None,
        tell: std::sync::Arc::new(|_: &str| {}),
    }
}

/// See the module.
pub(crate) struct ClusterProcess {
    child: Child,
    address: ClusterAddress,
    directory: tempfile::TempDir,
}

impl ClusterProcess {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(executors: usize, cores: usize) -> Self {
        Self::start_with(executors, cores, &[])
    }

    /// As [`ClusterProcess::start`], with more arguments of `cluster start`.
    pub(crate) fn start_with(executors: usize, cores: usize, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (executors, cores) = (executors.to_string(), cores.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
        command
            .args(["cluster", "start", "--executors", &executors, "--cores", &cores, "--bind", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .arg("--work-dir")
            .arg(directory.path())
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn(command);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (begun, mut said) = (Instant::now(), Vec::new());
        let address = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("the cluster did not start:\n{}", said.join("\n"))).unwrap();
            if let Some((_, address)) = line.split_once("--cluster ") {
                break address.parse().unwrap();
            }
            said.push(line);
            assert!(begun.elapsed() < READY_WITHIN, "the cluster is not ready:\n{}", said.join("\n"));
        };
        // A pipe that nobody reads would stop the cluster when it is full.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        ClusterProcess { child, address, directory }
    }

    /// Where its scheduler is.
    pub(crate) fn address(&self) -> &ClusterAddress {
        &self.address
    }

    /// A directory that goes with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The processes of a role, `scheduler` or `executor`, in the order in which they were started.
    pub(crate) fn processes(&self, role: &str) -> Vec<i32> {
        let own = self.child.id();
        // Processes are the children of the thread that started them.
        let threads = std::fs::read_dir(format!("/proc/{own}/task")).into_iter().flatten().flatten();
        let children: String = threads
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .collect::<Vec<_>>()
            .join(" ");
        let is_role = |process: &i32| {
            let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
        };
        children.split_whitespace().filter_map(|text| text.parse().ok()).filter(is_role).collect()
    }
}

impl Drop for ClusterProcess {
    fn drop(&mut self) {
        signal(i32::try_from(self.child.id()).unwrap(), libc::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One role as a process of its own.
pub(crate) struct Role(Child);

impl Role {
    /// Starts `gristmill` with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        Role::spawn(command)
    }

    /// Starts any program.
    pub(crate) fn spawn(command: Command) -> Self {
        Role(spawn(command))
    }

    /// Its number.
    pub(crate) fn process(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Role {
    /// Kills it, and waits until it is gone.
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.end();
    }
}

/// A cluster whose roles are started, stopped, killed and replaced one by one. Executors have one core each.
pub(crate) struct Roles {
    scheduler: Role,
    executors: Vec<(String, Role)>,
    bind: String,
    address: ClusterAddress,
    started: usize,
    directory: tempfile::TempDir,
}

impl Roles {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(executors: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bind = format!("127.0.0.1:{}", free_port());
        let address = format!("gristmill://{bind}").parse().unwrap();
        let scheduler = Self::scheduler_at(&bind, directory.path());
        let mut roles = Roles { scheduler, executors: Vec::new(), bind, address, started: 0, directory };
        for _ in 0..executors {
            let executor = roles.new_executor();
            roles.executors.push(executor);
        }
        roles.wait();
        roles
    }

    fn scheduler_at(bind: &str, directory: &Path) -> Role {
        let state = directory.join("state").display().to_string();
        Role::start(&["scheduler", "-q", "--bind", bind, "--state-dir", &state])
    }

    fn new_executor(&mut self) -> (String, Role) {
        self.started += 1;
        let id = format!("executor-{}", self.started);
        let role = self.executor_named(&id);
        (id, role)
    }

    fn executor_named(&self, id: &str) -> Role {
        let (scheduler, work) = (self.address.to_string(), self.directory.path().display().to_string());
        Role::start(&["executor", "-q", "--scheduler", &scheduler, "--id", id, "--cores", "1", "--work-dir", &work])
    }

    pub(crate) fn address(&self) -> &ClusterAddress {
        &self.address
    }

    /// A directory that goes with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn scheduler(&self) -> i32 {
        self.scheduler.process()
    }

    pub(crate) fn executor(&self, number: usize) -> i32 {
        self.executors[number].1.process()
    }

    /// Ends an executor, if it lives, and starts another in its place.
    pub(crate) fn replace_executor(&mut self, number: usize) {
        self.executors[number].1.end();
        self.executors[number] = self.new_executor();
    }

    /// Kills an executor, and starts it again under its name.
    pub(crate) fn restart_executor(&mut self, number: usize) {
        self.executors[number].1.end();
        self.executors[number].1 = self.executor_named(&self.executors[number].0.clone());
    }

    /// Starts one more.
    pub(crate) fn add_executor(&mut self) {
        let executor = self.new_executor();
        self.executors.push(executor);
    }

    /// Ends the scheduler, if it lives, and starts another in its place, with the same history.
    pub(crate) fn replace_scheduler(&mut self) {
        self.scheduler.end();
        self.scheduler = Self::scheduler_at(&self.bind, self.directory.path());
    }

    /// Waits until the scheduler knows all executors.
    pub(crate) fn wait(&self) {
        let begun = Instant::now();
        let address = self.address.to_string();
        loop {
            let output = Command::new(env!("CARGO_BIN_EXE_gristmill"))
                .args(["cluster", "executors", "--format", "csv", "--cluster", &address])
                .output()
                .unwrap();
            let listed = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_there = |id: &str| listed.lines().any(|line| line.split(',').next() == Some(id));
            if output.status.success() && self.executors.iter().all(|(id, _)| is_there(id)) {
                return;
            }
            assert!(begun.elapsed() < READY_WITHIN, "{listed}{}", String::from_utf8_lossy(&output.stderr));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A port that nobody listens at, of those that the system gives to nobody who just connects: one of these could be taken by
/// another test's connection before it is listened at.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 997) as u16;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = || 20_000 + (begin * 11 + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
    std::iter::repeat_with(port).take(12_000).find(is_free).expect("there is a free port from 20000 on")
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn signal(process: i32, signal: i32) {
    // SAFETY: kill only sends a signal, here to a process that this test has started.
    unsafe { libc::kill(process, signal) };
}

/// Starts a process that ends when this one does. The kernel watches the thread that started it, so that is one which
/// lives as long as the process.
pub(crate) fn spawn(mut command: Command) -> Child {
    // SAFETY: prctl is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        give.send(command.spawn().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    });
    take.recv().unwrap()
}

/// One cluster of two executors for all tests that change nothing about it.
pub(crate) fn shared() -> &'static ClusterProcess {
    static SHARED: OnceLock<ClusterProcess> = OnceLock::new();
    SHARED.get_or_init(|| ClusterProcess::start(2, 1))
}
