//! Gangs on a cluster, with a task that only these tests know: sums over steps, checkpoints, and a way to fail. Executors
//! are this test program again, so that the task is known to them; the scheduler is the real one. What must hold whatever
//! dies: the bytes of an undisturbed run, or an error that says what is wrong.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::cluster::{ClusterAddress, ClusterClient, Environment, run_executor};
use engine::gang::{Ended, GangEvent, GangOrder, GangTask, Gangs, Offer, Seat, Tag, ThreadGangs};
use engine::runner::{ClusterRunner, Runner};
use engine::{Error, Extension, Result};
use serde::{Deserialize, Serialize};
use storage::Stores;
use tokio_util::sync::CancellationToken;

use crate::cluster_process::{Role, executor_settings, free_port, signal};
use crate::hosts::Hosts;

/// No step here takes longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(180);
const LENGTH: usize = 1000;
const LEAVES: usize = 4;
const CHECKPOINT_EVERY: u64 = 5;

/// What a run of [`Count`] is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    steps: u64,
    /// That a step computes after it has announced its exchange.
    millis: u64,
    /// Where its checkpoint is, and the name of the run.
    directory: PathBuf,
    /// At which step the last rank fails, and how.
    fails: Option<(u64, Failing)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Failing {
    Error,
    Panic,
}

/// Adds up numbers that depend on step, place and what was there before. A step announces the first half of its last plane
/// and computes on for a while.
struct Count;

impl GangTask for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    fn run(&self, order: &[u8], seat: &mut Seat<'_>) -> Result<Ended> {
        let order: Order = serde_json::from_slice(order).unwrap();
        let (rank, world) = (seat.mesh.rank(), seat.mesh.world());
        let checkpoint = order.directory.join("checkpoint");
        let (mut step, mut vector) = load(&checkpoint).unwrap_or_else(|| (0, vec![0.0; LENGTH]));
        if rank == 0 {
            (seat.report)(format!("begin {step}").into_bytes());
        }
        let cuts: Vec<_> = (0..world).map(|rank| rank * LENGTH / world..(rank + 1) * LENGTH / world).collect();
        while step < order.steps {
            if seat.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let leaves = rank * LEAVES / world..(rank + 1) * LEAVES / world;
            let value =
                |leaf: usize, i: usize| ((step * 31 + (leaf * 17 + i * 7) as u64 + vector[i] as u64) % 1009) as f32;
            let planes: Vec<f32> =
                leaves.flat_map(|leaf| (0..LENGTH).map(move |i| (leaf, i))).map(|(l, i)| value(l, i)).collect();
            let offer = Offer { header: &[], planes: &planes, plane: LENGTH, cuts: &cuts };
            let own = cuts[rank].clone();
            let mut sums = vec![0.0; own.len()];
            let tag = |round| Tag { generation: seat.generation, step, round };
            seat.mesh.announce(tag(0), offer, LENGTH / 2);
            std::thread::sleep(Duration::from_millis(order.millis));
            match order.fails {
                Some((at, how)) if at == step && rank + 1 == world => match how {
                    Failing::Error => return Err(Error::invalid("block 7 cannot be read").with_hint("copy it again")),
                    Failing::Panic => panic!("the disk is on fire"),
                },
                _ => {}
            }
            let lost = |error: engine::gang::GangError| Error::invalid(error.to_string());
            let mut fold = |parts: &[engine::gang::Part<'_>]| {
                for part in parts {
                    for plane in 0..part.planes() {
                        sums.iter_mut().zip(part.plane(plane)).for_each(|(sum, number)| *sum += number);
                    }
                }
            };
            seat.mesh.exchange(tag(0), offer, &mut fold).map_err(lost)?;
            for (i, sum) in own.zip(sums) {
                vector[i] = (vector[i] + sum) % 65521.0;
            }
            seat.mesh.all_gather(tag(1), &mut vector, &cuts).map_err(lost)?;
            step += 1;
            let leaving = seat.mesh.leaving();
            if rank == 0 && (step.is_multiple_of(CHECKPOINT_EVERY) || leaving) {
                save(&checkpoint, step, &vector);
                (seat.report)(format!("step {step}").into_bytes());
            }
            if leaving && step < order.steps {
                return Ok(Ended::Left);
            }
        }
        Ok(Ended::Done(bytes(&vector)))
    }
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn save(path: &Path, step: u64, vector: &[f32]) {
    let fresh = path.with_extension(format!("{}", std::process::id()));
    std::fs::write(&fresh, [step.to_le_bytes().to_vec(), bytes(vector)].concat()).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

fn load(path: &Path) -> Option<(u64, Vec<f32>)> {
    let bytes = std::fs::read(path).ok()?;
    let (step, numbers) = bytes.split_at(8);
    let vector = numbers.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    Some((u64::from_le_bytes(step.try_into().unwrap()), vector))
}

fn extension() -> Extension {
    Extension { name: "test", gang_tasks: vec![Arc::new(Count)], ..Extension::default() }
}

/// Not a test: what the executors of these tests are.
#[test]
#[ignore = "started by the tests of this module as a process of its own"]
fn as_an_executor() {
    #[allow(clippy::disallowed_methods, reason = "the door of this process")]
    let Ok(told) = std::env::var("GRISTMILL_TEST_EXECUTOR") else { return };
    let words: Vec<&str> = told.split(' ').collect();
    let [address, id, host] = words[..] else { panic!("{told}") };
    let settings = executor_settings(address, id, host);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run_executor(settings, &Environment::new(Stores::new(), extension()))).unwrap();
}

/// A scheduler, and executors that come and go.
struct Cluster {
    scheduler: Mutex<Option<Role>>,
    address: ClusterAddress,
    executors: Mutex<Vec<(String, Role)>>,
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn start(executors: usize) -> Self {
        let cluster = Cluster::without_executors("127.0.0.1");
        (0..executors).for_each(|number| cluster.join(&format!("e-{number}")));
        cluster.wait_for(executors);
        cluster
    }

    fn without_executors(host: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bind = format!("{host}:{}", free_port());
        let state = directory.path().join("state").display().to_string();
        Cluster {
            scheduler: Mutex::new(Some(Role::start(&["scheduler", "--bind", &bind, "--state-dir", &state]))),
            address: bind.parse().unwrap(),
            executors: Mutex::default(),
            directory,
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        }
    }

    fn join(&self, id: &str) {
        self.join_from(Command::new(std::env::current_exe().unwrap()), id, "127.0.0.1");
    }

    /// Starts an executor that listens at `host`; `program` is this test program, or what starts it elsewhere.
    fn join_from(&self, mut program: Command, id: &str, host: &str) {
        program
            .args(["--ignored", "--exact", "gang::as_an_executor"])
            .env("GRISTMILL_TEST_EXECUTOR", format!("{} {id} {host}", self.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.executors.lock().unwrap().push((id.to_string(), Role::spawn(program)));
    }

    fn wait_for(&self, executors: usize) {
        let begun = Instant::now();
        let client = ClusterClient::new(self.address.clone());
        let known = || {
            self.runtime.block_on(async {
                let (http, url) = client.http("gangs/members");
                client.answer::<usize>(http.get(url)).await.unwrap_or(0)
            })
        };
        while known() < executors
            || self.runtime.block_on(client.executors()).map_or(0, |known| known.len()) < executors
        {
            assert!(begun.elapsed() < PATIENCE, "{} of {executors} executors are there", known());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, id: &str, number: i32) {
        let executors = self.executors.lock().unwrap();
        let (_, role) = executors.iter().find(|(known, _)| known == id).expect("there is such an executor");
        signal(role.process(), number);
    }

    fn order(&self, name: &str, steps: u64, millis: u64) -> Order {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Order { steps, millis, directory, fails: None }
    }

    /// Runs to the end; `look` sees every event as it comes.
    fn run(
        &self,
        order: &Order,
        workers: RangeInclusive<usize>,
        look: &(dyn Fn(&GangEvent) + Sync),
    ) -> (Result<Vec<u8>>, Events) {
        let environment = Environment::new(Stores::new(), extension());
        self.runtime.block_on(async {
            let runner = ClusterRunner::connect(ClusterClient::new(self.address.clone()), environment).await.unwrap();
            let gangs = runner.gangs().unwrap();
            assert!(!gangs.is_local());
            run(gangs.as_ref(), order, workers, look, &CancellationToken::new()).await
        })
    }
}

async fn run(
    gangs: &dyn Gangs,
    order: &Order,
    workers: RangeInclusive<usize>,
    look: &(dyn Fn(&GangEvent) + Sync),
    cancel: &CancellationToken,
) -> (Result<Vec<u8>>, Events) {
    let events = Mutex::new(Vec::new());
    let watch = |event: GangEvent| {
        look(&event);
        events.lock().unwrap().push((Instant::now(), event));
    };
    let wanted = GangOrder {
        task: "count".to_string(),
        order: serde_json::to_vec(order).unwrap(),
        workers,
        wait: Duration::from_secs(2),
    };
    let result = tokio::time::timeout(PATIENCE, gangs.run(wanted, cancel, &watch)).await.expect("the run ends");
    (result, Events(events.into_inner().unwrap()))
}

/// What a coordinator heard, and when.
#[derive(Debug)]
struct Events(Vec<(Instant, GangEvent)>);

impl Events {
    /// Workers of each generation.
    fn generations(&self) -> Vec<Vec<String>> {
        let formed = |event: &GangEvent| match event {
            GangEvent::Formed { workers, .. } => Some(workers.clone()),
            _ => None,
        };
        self.0.iter().filter_map(|(_, event)| formed(event)).collect()
    }

    fn lost(&self) -> Vec<String> {
        let lost = |event: &GangEvent| match event {
            GangEvent::Lost { worker, .. } => Some(worker.clone()),
            _ => None,
        };
        let mut lost: Vec<String> = self.0.iter().filter_map(|(_, event)| lost(event)).collect();
        lost.sort();
        lost
    }

    fn reports(&self) -> Vec<String> {
        let said = |event: &GangEvent| match event {
            GangEvent::Report { bytes, .. } => Some(String::from_utf8(bytes.clone()).unwrap()),
            _ => None,
        };
        self.0.iter().filter_map(|(_, event)| said(event)).collect()
    }
}

/// What a run must give, from threads of this process.
fn undisturbed(steps: u64, workers: usize) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let order = Order { steps, millis: 0, directory: directory.path().to_path_buf(), fails: None };
    let gangs = ThreadGangs {
        tasks: extension().gang_tasks,
        stores: Stores::new(),
        scratch: directory.path().to_path_buf(),
        threads: workers,
        memory: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = workers..=workers;
    runtime.block_on(run(&gangs, &order, all, &|_| {}, &CancellationToken::new())).0.unwrap()
}

fn is_report(event: &GangEvent, text: &str) -> bool {
    matches!(event, GangEvent::Report { bytes, .. } if bytes == text.as_bytes())
}

#[test]
fn executors_give_the_bytes_of_threads_and_a_worker_s_error_ends_the_run() {
    let expected = undisturbed(20, 1);
    for workers in [2, 3, 4, 7] {
        assert_eq!(undisturbed(20, workers), expected, "{workers} threads");
    }
    let cluster = Cluster::start(3);
    for workers in 1..=3 {
        let (result, events) = cluster.run(&cluster.order(&format!("w{workers}"), 20, 0), workers..=workers, &|_| {});
        assert_eq!(result.unwrap(), expected, "{workers} executors");
        assert_eq!(events.generations().len(), 1);
        assert_eq!(events.generations()[0].len(), workers);
    }
    for (how, message) in [
        (Failing::Error, "block 7 cannot be read"),
        (Failing::Panic, "worker 2 of count was stopped by a fault of the program: the disk is on fire"),
    ] {
        let order = Order { fails: Some((7, how)), ..cluster.order(&format!("{how:?}"), 20, 0) };
        let (result, events) = cluster.run(&order, 1..=usize::MAX, &|_| {});
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(events.generations().len(), 1, "an own error is not tried again");
        if how == Failing::Error {
            assert!(matches!(error, Error::Invalid { hint: Some(hint), .. } if hint == "copy it again"));
        }
    }
    // More than there are.
    let (result, events) = cluster.run(&cluster.order("many", 20, 0), 4..=4, &|_| {});
    assert_eq!(result.unwrap_err().to_string(), "a gang of at least 4 workers is wanted, the cluster has 3");
    assert!(events.0.is_empty());
    // And the workers are free for the next.
    assert_eq!(cluster.run(&cluster.order("next", 20, 0), 3..=3, &|_| {}).0.unwrap(), expected);
}

#[test]
fn killed_workers_are_replaced_or_done_without() {
    let expected = undisturbed(200, 1);
    let cluster = Cluster::start(4);
    let killed = Mutex::new(None);
    let (result, events) = cluster.run(&cluster.order("one", 200, 10), 3..=3, &|event| {
        if is_report(event, "step 50") {
            cluster.signal("e-1", libc::SIGKILL);
            *killed.lock().unwrap() = Some(Instant::now());
        }
    });
    assert_eq!(result.unwrap(), expected);
    assert_eq!(events.lost(), ["e-1"]);
    assert_eq!(events.generations()[1], ["e-0", "e-2", "e-3"], "e-3 takes the place of e-1");
    let killed = killed.into_inner().unwrap().expect("one was killed");
    let next = events.0.iter().find(|(at, event)| {
        *at > killed && matches!(event, GangEvent::Report { bytes, .. } if bytes.starts_with(b"begin"))
    });
    println!("from SIGKILL to the next generation's first step: {:?}", next.unwrap().0 - killed);

    // Two at once, with nobody to replace them: the gang shrinks, and grows with who joins for the generation after.
    let (result, events) = cluster.run(&cluster.order("two", 200, 10), 3..=3, &|event| {
        if is_report(event, "step 50") {
            cluster.signal("e-0", libc::SIGKILL);
            cluster.signal("e-3", libc::SIGKILL);
            cluster.join("e-4");
        }
    });
    assert_eq!(result.unwrap(), expected);
    assert_eq!(events.lost(), ["e-0", "e-3"]);
    let last = events.generations().pop().unwrap();
    assert!(last.contains(&"e-2".to_string()) && last.len() <= 2, "{last:?}");
    cluster.wait_for(2);
    cluster.join("e-5");
    let (result, events) = cluster.run(&cluster.order("three", 300, 10), 2..=3, &|event| {
        if is_report(event, "step 100") {
            cluster.wait_for_member_soon(3);
            cluster.signal("e-2", libc::SIGKILL);
        }
    });
    assert_eq!(result.unwrap(), undisturbed(300, 1));
    assert_eq!(events.generations().last().unwrap(), &["e-4", "e-5"], "{events:?}");
}

impl Cluster {
    /// Waits, inside a run's own event, until so many executors take ranks.
    fn wait_for_member_soon(&self, executors: usize) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let client = ClusterClient::new(self.address.clone());
                let begun = Instant::now();
                while begun.elapsed() < PATIENCE {
                    let (http, url) = client.http("gangs/members");
                    if runtime.block_on(client.answer::<usize>(http.get(url))).unwrap_or(0) >= executors {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        });
    }
}

#[test]
fn a_frozen_worker_is_fenced_and_a_leaving_one_costs_no_step() {
    let expected = undisturbed(200, 1);
    let cluster = Cluster::start(3);
    let (result, events) = cluster.run(&cluster.order("frozen", 200, 40), 2..=2, &|event| match event {
        _ if is_report(event, "step 20") => cluster.signal("e-1", libc::SIGSTOP),
        // It goes on as if nothing had happened while the next generation is at work.
        _ if is_report(event, "step 120") => cluster.signal("e-1", libc::SIGCONT),
        _ => {}
    });
    assert_eq!(result.unwrap(), expected);
    assert_eq!(events.lost(), ["e-1"]);
    assert_eq!(events.generations()[1..], [["e-0", "e-2"]], "it does not disturb those who went on without it");
    cluster.wait_for(3);

    let (result, events) = cluster.run(&cluster.order("leaving", 200, 10), 3..=3, &|event| {
        if is_report(event, "step 50") {
            cluster.signal("e-1", libc::SIGTERM);
        }
    });
    assert_eq!(result.unwrap(), expected);
    assert_eq!((events.generations().len(), events.lost().len()), (2, 0), "{events:?}");
    assert_eq!(events.generations()[1], ["e-0", "e-2"]);
    assert!(events.0.iter().any(|(_, event)| *event == GangEvent::Leaving { worker: "e-1".to_string() }));
    let reports = events.reports();
    let again = reports.iter().rposition(|report| report.starts_with("begin")).unwrap();
    assert_eq!(reports[again].replace("begin", "step"), reports[again - 1], "no step is lost: {reports:?}");
}

#[test]
fn two_runs_queue_for_workers_and_a_coordinator_that_is_gone_frees_them() {
    let expected = undisturbed(60, 1);
    let cluster = Cluster::start(3);
    let results: Vec<(Vec<u8>, Events)> = std::thread::scope(|scope| {
        let run = |name: &str| {
            let order = cluster.order(name, 60, 10);
            let cluster = &cluster;
            scope.spawn(move || {
                let (result, events) = cluster.run(&order, 2..=3, &|_| {});
                (result.unwrap(), events)
            })
        };
        let both = [run("first"), run("second")];
        both.map(|thread| thread.join().unwrap()).into()
    });
    for (result, events) in &results {
        assert_eq!(*result, expected);
        assert!(events.generations()[0].len() >= 2, "{events:?}");
    }
    let queued = |events: &Events| events.0.iter().any(|(_, event)| matches!(event, GangEvent::Queued { .. }));
    assert_eq!(results.iter().filter(|(_, events)| queued(events)).count(), 1, "one waits for the other");

    // A coordinator that is dropped in the middle.
    let order = cluster.order("dropped", 100_000, 10);
    let environment = Environment::new(Stores::new(), extension());
    cluster.runtime.block_on(async {
        let runner = ClusterRunner::connect(ClusterClient::new(cluster.address.clone()), environment).await.unwrap();
        let gangs = runner.gangs().unwrap();
        let begun = tokio::sync::Notify::new();
        let cancel = CancellationToken::new();
        let look = |event: &GangEvent| {
            if is_report(event, "step 10") {
                begun.notify_one();
            }
        };
        tokio::select! {
            (result, _) = run(gangs.as_ref(), &order, 3..=3, &look, &cancel) => panic!("it ended: {result:?}"),
            () = begun.notified() => {}
        }
        // And one that the user stops.
        let stop = |event: &GangEvent| {
            if is_report(event, "step 10") {
                cancel.cancel();
            }
        };
        let order = cluster.order("stopped", 100_000, 10);
        let (result, _) = run(gangs.as_ref(), &order, 3..=3, &stop, &cancel).await;
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    });
    assert_eq!(cluster.run(&cluster.order("after", 60, 0), 3..=3, &|_| {}).0.unwrap(), expected);

    // A scheduler that is gone takes the run with it.
    let (result, _) = cluster.run(&cluster.order("orphan", 100_000, 10), 3..=3, &|event| {
        if is_report(event, "step 10") {
            drop(cluster.scheduler.lock().unwrap().take());
        }
    });
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::Cluster(told) if told.contains("cannot be reached")), "{error}");
}

/// A host whose cable is pulled sends no good-bye: its connections are open, and silent.
#[test]
fn a_host_that_is_cut_off_is_done_without() {
    let hosts = match Hosts::new(3) {
        Ok(hosts) => hosts,
        Err(reason) => return println!("skipped, this needs network namespaces: {reason}"),
    };
    let expected = undisturbed(200, 1);
    let cluster = Cluster::without_executors(&hosts.bridge());
    (0..3).for_each(|host| cluster.join_from(hosts.program(host), &format!("e-{host}"), &hosts.address(host)));
    cluster.wait_for(3);
    let cut = Mutex::new(None);
    let (result, events) = cluster.run(&cluster.order("cut", 200, 20), 3..=3, &|event| {
        if is_report(event, "step 50") {
            hosts.set_link(1, "down");
            *cut.lock().unwrap() = Some(Instant::now());
        }
    });
    assert_eq!(result.unwrap(), expected);
    assert_eq!(events.lost(), ["e-1"]);
    assert_eq!(events.generations().last().unwrap(), &["e-0", "e-2"]);
    let formed = events.0.iter().rfind(|(_, event)| matches!(event, GangEvent::Formed { .. })).unwrap().0;
    println!("from the cut to the next generation: {:?}", formed - cut.into_inner().unwrap().unwrap());
    // The cable is back, and so is the host.
    hosts.set_link(1, "up");
    cluster.wait_for(3);
    assert_eq!(cluster.run(&cluster.order("back", 200, 0), 3..=3, &|_| {}).0.unwrap(), expected);
}

/// A slow link makes a run slow, and nothing else: the host behind it is not taken for lost. Exchanges that take longer than
/// the silence of the dead are the affair of `conversation/tests.rs`, on a virtual clock: on a real link of this rate one
/// connection can starve the other for as long.
#[test]
fn a_host_behind_a_slow_link_is_waited_for() {
    let hosts = match Hosts::new(3) {
        Ok(hosts) => hosts,
        Err(reason) => return println!("skipped, this needs network namespaces: {reason}"),
    };
    // A step sends some 12 kB: a tenth of a second.
    if let Err(reason) = hosts.limit(1, "1mbit") {
        return println!("skipped, this needs a link that can be slowed down: {reason}");
    }
    let cluster = Cluster::without_executors(&hosts.bridge());
    (0..3).for_each(|host| cluster.join_from(hosts.program(host), &format!("e-{host}"), &hosts.address(host)));
    cluster.wait_for(3);
    let (result, events) = cluster.run(&cluster.order("slow", 80, 0), 3..=3, &|_| {});
    assert_eq!(result.unwrap(), undisturbed(80, 1));
    assert_eq!(events.generations().len(), 1, "{events:?}");
    assert!(events.lost().is_empty(), "{events:?}");
    let waits = hosts.waits(1);
    assert!(waits > 80, "the link was the limit: {waits} waits");
    println!("the link was waited for {waits} times");
}
