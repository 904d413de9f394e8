//! How long the two exchanges of a training step take between executors: all give the owners of the slices their
//! gradients, the owners add them up, and give the sums to all.
//!
//! ```text
//! cargo bench --bench reduce [-- NETWORK...] [workers=2,4,8] [bytes=400000,40000000]
//! ```
//!
//! NETWORK is `loopback`, `hosts` (a network namespace for each executor, on a bridge), or a rate as tc writes it, `500mbit`:
//! hosts whose links carry no more than that, each way. The scheduler is the real one, executors are this program again,
//! a process each with one thread for its rank. One line for each measurement: network, workers, bytes of gradients,
//! the median and the least seconds of a step, steps. `docs/figures/scaling.py` fits a model to them.
#![allow(clippy::print_stdout, reason = "a bench speaks on stdout")]
#![allow(clippy::print_stderr, reason = "and says on stderr what it leaves out")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::cluster::{ClusterAddress, ClusterClient, Environment, run_executor};
use engine::gang::{Ended, GangError, GangEvent, GangOrder, GangTask, Seat, Tag};
use engine::runner::{ClusterRunner, Runner};
use engine::{Error, Extension, Result};
use serde::{Deserialize, Serialize};
use storage::Stores;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/it/cluster_process.rs"]
mod cluster_process;
mod exchange;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/it/hosts.rs"]
mod hosts;

use cluster_process::{Role, executor_settings, free_port};
use hosts::Hosts;

/// Steps of a measurement after the first, which nobody counts: the least, and for how long there are more.
const STEPS_MIN: usize = 3;
const MEASURE: Duration = Duration::from_millis(1500);
/// A link that needs longer for one vector is not measured with it unless it is said.
const VECTOR_SECONDS_MAX: f64 = 8.0;
const PATIENCE: Duration = Duration::from_secs(120);

/// What runs between executors: the vectors' bytes, one after the other.
struct Exchanges;

#[derive(Serialize, Deserialize)]
struct Measured {
    workers: usize,
    bytes: usize,
    /// Of each step.
    seconds: Vec<f64>,
}

impl GangTask for Exchanges {
    fn name(&self) -> &'static str {
        "exchanges"
    }

    fn run(&self, order: &[u8], seat: &mut Seat<'_>) -> Result<Ended> {
        let sizes: Vec<usize> = serde_json::from_slice(order).map_err(|error| Error::invalid(error.to_string()))?;
        let mut step = 0;
        for bytes in sizes {
            let seconds = measure(seat, bytes / size_of::<f32>(), &mut step)?;
            if seat.mesh.rank() == 0 {
                let measured = Measured { workers: seat.mesh.world(), bytes, seconds };
                (seat.report)(serde_json::to_vec(&measured).unwrap());
            }
        }
        Ok(Ended::Done(Vec::new()))
    }
}

/// Seconds of each step with vectors of so many numbers. Rank 0 decides when it is enough.
fn measure(seat: &mut Seat<'_>, len: usize, step: &mut u64) -> Result<Vec<f64>> {
    let lost = |error: GangError| Error::invalid(error.to_string());
    let (rank, world) = (seat.mesh.rank(), seat.mesh.world());
    let cuts = exchange::cuts(len, world);
    let gradient = vec![1.0; len];
    let mut parameters = vec![0.0; len];
    let mut seconds = Vec::new();
    let begun = Instant::now();
    loop {
        let step_begun = Instant::now();
        let tag = |round| Tag { generation: seat.generation, step: *step, round };
        let enough = seconds.len() > STEPS_MIN && begun.elapsed() > MEASURE;
        let header = [f64::from(u8::from(enough))];
        let told = exchange::step(seat.mesh, [tag(0), tag(1)], header, &gradient, &mut parameters, &cuts);
        let is_last = told.map_err(lost)? != [0.0];
        seconds.push(step_begun.elapsed().as_secs_f64());
        *step += 1;
        if is_last {
            break;
        }
    }
    if parameters.iter().any(|sum| *sum != world as f32) {
        return Err(Error::invalid(format!("worker {rank} has another sum than {world}")));
    }
    Ok(seconds.split_off(1))
}

fn environment() -> Environment {
    let extension = Extension { name: "bench", gang_tasks: vec![Arc::new(Exchanges)], ..Extension::default() };
    Environment::new(Stores::new(), extension)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// This program as an executor.
fn serve(scheduler: &str, id: &str, host: &str) {
    let settings = executor_settings(scheduler, id, host);
    runtime().block_on(run_executor(settings, &environment())).unwrap();
}

/// What lies between executors.
#[derive(Clone, PartialEq)]
enum Network {
    Loopback,
    Hosts,
    Limited { rate: String, bits_per_second: f64 },
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Loopback => f.write_str("loopback"),
            Network::Hosts => f.write_str("hosts"),
            Network::Limited { rate, .. } => f.write_str(rate),
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        match word {
            "loopback" => return Ok(Network::Loopback),
            "hosts" => return Ok(Network::Hosts),
            _ => {}
        }
        let rate = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)].iter().find_map(|(unit, bits)| {
            let number: f64 = word.strip_suffix(unit)?.parse().ok()?;
            Some(number * bits)
        });
        let bits_per_second = rate.ok_or(format!("{word}: expected loopback, hosts, or a rate such as 200mbit"))?;
        Ok(Network::Limited { rate: word.to_string(), bits_per_second })
    }
}

impl Network {
    /// How many executors are measured unless it is said: on loopback as many as there is time for.
    fn workers(&self) -> Vec<usize> {
        match self {
            Network::Loopback => vec![2, 4, 8, 16, 32],
            Network::Hosts => vec![2, 4, 8, 16],
            Network::Limited { .. } => vec![2, 4, 8],
        }
    }

    /// How many bytes are measured unless it is said.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![4_000, 40_000, 400_000, 4_000_000, 40_000_000, 440_000_000];
        if let Network::Limited { bits_per_second, .. } = self {
            // What fits into the links' buckets is not limited.
            sizes.retain(|bytes| *bytes >= 400_000 && 8.0 * *bytes as f64 / bits_per_second < VECTOR_SECONDS_MAX);
        }
        sizes
    }
}

/// Why so many bytes cannot be measured, if they cannot.
fn too_much(workers: usize, bytes: usize) -> Option<String> {
    // A rank holds its gradient, the parameters, and what the others gave it.
    let (needed, available) = (3 * workers * bytes, memory_available());
    (needed > available / 4 * 3).then(|| format!("it needs {} MB, {} are free", needed >> 20, available >> 20))
}

fn memory_available() -> usize {
    let lines = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = lines.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<usize> = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kib.map_or(usize::MAX, |kib| kib << 10)
}

/// A scheduler, and executors beside it.
struct Cluster {
    // In the order in which they go.
    executors: Vec<Role>,
    _scheduler: Role,
    address: ClusterAddress,
    hosts: Option<Hosts>,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Cluster {
    /// `Err` says what this machine does not allow.
    fn start(network: &Network, executors_max: usize) -> std::result::Result<Self, String> {
        let hosts = match network {
            Network::Loopback => None,
            _ => Some(Hosts::new(executors_max)?),
        };
        if let (Some(hosts), Network::Limited { rate, .. }) = (&hosts, network) {
            (0..executors_max).try_for_each(|host| hosts.limit(host, rate))?;
        }
        let host = hosts.as_ref().map_or("127.0.0.1".to_string(), Hosts::bridge);
        let bind = format!("{host}:{}", free_port());
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state").display().to_string();
        Ok(Cluster {
            executors: Vec::new(),
            _scheduler: Role::start(&["scheduler", "--bind", &bind, "--state-dir", &state]),
            address: bind.parse().unwrap(),
            hosts,
            runtime: runtime(),
            _directory: directory,
        })
    }

    /// Starts executors until there are so many, and waits until the scheduler knows them.
    fn grow(&mut self, executors: usize) {
        for number in self.executors.len()..executors {
            let (mut program, host) = match &self.hosts {
                None => (Command::new(std::env::current_exe().unwrap()), "127.0.0.1".to_string()),
                Some(hosts) => (hosts.program(number), hosts.address(number)),
            };
            program
                .args(["executor", &self.address.to_string(), &format!("e-{number}"), &host])
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            self.executors.push(Role::spawn(program));
        }
        let begun = Instant::now();
        let client = ClusterClient::new(self.address.clone());
        let known = || {
            self.runtime.block_on(async {
                let (http, url) = client.http("gangs/members");
                client.answer::<usize>(http.get(url)).await.unwrap_or(0)
            })
        };
        // For gangs, and for the queries that are not asked here.
        let all = || self.runtime.block_on(client.executors()).map_or(0, |all| all.len());
        while known() < executors || all() < executors {
            assert!(begun.elapsed() < PATIENCE, "{} of {executors} executors are there", known().min(all()));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn measure(&self, network: &Network, workers: usize, sizes: &[usize]) -> Result<()> {
        let watch = |event: GangEvent| match event {
            GangEvent::Report { bytes, .. } => print(network, &serde_json::from_slice(&bytes).unwrap()),
            GangEvent::Lost { worker, cause, .. } => eprintln!("lost {worker}: {cause}"),
            _ => {}
        };
        let order = GangOrder {
            task: "exchanges".to_string(),
            order: serde_json::to_vec(sizes).unwrap(),
            workers: workers..=workers,
            wait: PATIENCE,
        };
        self.runtime.block_on(async {
            let client = ClusterClient::new(self.address.clone());
            let runner = ClusterRunner::connect(client, environment()).await?;
            let gangs = runner.gangs().expect("a cluster has gangs");
            gangs.run(order, &CancellationToken::new(), &watch).await.map(drop)
        })
    }
}

fn print(network: &Network, measured: &Measured) {
    let mut seconds = measured.seconds.clone();
    seconds.sort_by(f64::total_cmp);
    let (median, least) = (seconds[seconds.len() / 2], seconds[0]);
    let Measured { workers, bytes, .. } = measured;
    println!("reduce\t{network}\t{workers}\t{bytes}\t{median:.6}\t{least:.6}\t{}", seconds.len());
}

/// What was typed.
struct Arguments {
    networks: Vec<Network>,
    workers: Option<Vec<usize>>,
    sizes: Option<Vec<usize>>,
}

fn arguments(words: &[String]) -> std::result::Result<Arguments, String> {
    let numbers = |list: &str| -> std::result::Result<Vec<usize>, String> {
        let number = |word: &str| word.parse().map_err(|_| format!("{word}: expected a whole number"));
        list.split(',').map(number).collect()
    };
    let mut arguments = Arguments { networks: Vec::new(), workers: None, sizes: None };
    for word in words {
        match word.split_once('=') {
            Some(("workers", list)) => arguments.workers = Some(numbers(list)?),
            Some(("bytes", list)) => arguments.sizes = Some(numbers(list)?),
            _ => arguments.networks.push(word.parse()?),
        }
    }
    if arguments.workers.iter().flatten().any(|workers| !(2..=200).contains(workers)) {
        return Err("workers: expected 2 to 200".to_string());
    }
    if arguments.networks.is_empty() {
        let all = ["loopback", "hosts", "500mbit", "200mbit"];
        arguments.networks = all.iter().map(|word| word.parse()).collect::<std::result::Result<_, _>>()?;
    }
    Ok(arguments)
}

fn main() {
    // cargo passes `--bench` to every bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [role, scheduler, id, host] = &words[..]
        && role == "executor"
    {
        return serve(scheduler, id, host);
    }
    let arguments = arguments(&words).unwrap_or_else(|error| panic!("{error}"));
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("machine\t{}\t{build}", std::thread::available_parallelism().map_or(1, usize::from));
    for network in &arguments.networks {
        let mut all = arguments.workers.clone().unwrap_or_else(|| network.workers());
        all.sort_unstable();
        let mut cluster = match Cluster::start(network, all.last().copied().unwrap_or(0)) {
            Ok(cluster) => cluster,
            Err(reason) => {
                eprintln!("left out: {network}: {reason}");
                continue;
            }
        };
        for workers in all {
            let mut sizes = arguments.sizes.clone().unwrap_or_else(|| network.sizes());
            sizes.retain(|bytes| match too_much(workers, *bytes) {
                None => true,
                Some(reason) => {
                    eprintln!("left out: {network}, {workers} workers, {bytes} bytes: {reason}");
                    false
                }
            });
            cluster.grow(workers);
            cluster.measure(network, workers, &sizes).unwrap();
        }
    }
}
