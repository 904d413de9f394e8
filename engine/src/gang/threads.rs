//! Gangs of this process: a rank is a thread, and a generation that fails is the run's end, since what fails a thread
//! would fail its successor.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use storage::Stores;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::task::{Ended, GangEvent, GangOrder, GangTask, Gangs, Kept, Seat, find};
use super::{Rank, local};
use crate::error::{Error, Result};

/// Reports that wait for the coordinator before a rank that has more to say waits too.
const REPORTS: usize = 64;

/// See the module.
pub struct ThreadGangs {
    /// What ranks can do.
    pub tasks: Vec<Arc<dyn GangTask>>,
    /// The stores of this process.
    pub stores: Stores,
    /// A directory on this machine's disk.
    pub scratch: PathBuf,
    /// Threads that compute, together.
    pub threads: usize,
    /// Bytes that all ranks may hold together.
    pub memory: Option<u64>,
}

impl ThreadGangs {
    fn world(&self, order: &GangOrder) -> usize {
        let (least, most) = (*order.workers.start(), *order.workers.end());
        self.threads.clamp(least.max(1), most.max(least).max(1))
    }
}

#[async_trait]
impl Gangs for ThreadGangs {
    async fn run(
        &self,
        order: GangOrder,
        cancel: &CancellationToken,
        watch: &(dyn Fn(GangEvent) + Send + Sync),
    ) -> Result<Vec<u8>> {
        let task = find(&self.tasks, &order.task)
            .ok_or_else(|| Error::invalid(format!("no gang task is called {}", order.task)))?;
        let world = self.world(&order);
        let (send, mut reports) = mpsc::channel(REPORTS);
        let ranks = Ranks {
            task,
            order: order.order,
            run: uuid::Uuid::now_v7().to_string(),
            world,
            cores: (self.threads / world).max(1),
            stores: self.stores.clone(),
            scratch: self.scratch.clone(),
            memory: self.memory.map(|bytes| bytes / world as u64),
            cancel: cancel.child_token(),
        };
        let _stop = ranks.cancel.clone().drop_guard();
        watch(GangEvent::Formed { generation: 1, workers: (0..world).map(|rank| format!("thread {rank}")).collect() });
        let ended = tokio::task::spawn_blocking(move || ranks.run(&send));
        while let Some((rank, bytes)) = reports.recv().await {
            watch(GangEvent::Report { rank, bytes });
        }
        match ended.await {
            Ok(result) => result,
            Err(panicked) => match panicked.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Cancelled),
            },
        }
    }

    async fn available(&self) -> Result<usize> {
        Ok(self.threads)
    }

    fn is_local(&self) -> bool {
        true
    }
}

/// A generation of threads.
struct Ranks {
    task: Arc<dyn GangTask>,
    order: Vec<u8>,
    run: String,
    world: usize,
    cores: usize,
    stores: Stores,
    scratch: PathBuf,
    memory: Option<u64>,
    cancel: CancellationToken,
}

impl Ranks {
    fn run(&self, reports: &mpsc::Sender<(Rank, Vec<u8>)>) -> Result<Vec<u8>> {
        let ended = local::run(self.task.name(), self.world, |mesh| {
            let rank = super::Mesh::rank(mesh);
            // Whoever does not listen any more has stopped the run.
            let report = |bytes| drop(reports.blocking_send((rank, bytes)));
            self.task.run(
                &self.order,
                &mut Seat {
                    mesh,
                    run: &self.run,
                    generation: 1,
                    cores: self.cores,
                    stores: &self.stores,
                    scratch: &self.scratch,
                    kept: &Kept::default(),
                    memory: self.memory,
                    cancel: self.cancel.clone(),
                    report: &report,
                },
            )
        });
        let ended = ended.map_err(|failure| match failure {
            local::Failure::Error { error, .. } => error,
            local::Failure::Panic { rank, message } => super::fault(self.task.name(), rank, &message),
        })?;
        match ended.into_iter().next() {
            Some(Ended::Done(result)) => Ok(result),
            _ => Err(Error::Cancelled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gang::{GangError, Offer, Tag};
    use std::sync::Mutex;
    use std::time::Duration;

    /// Sums the ranks, or fails as its order says.
    struct Sum;

    impl GangTask for Sum {
        fn name(&self) -> &'static str {
            "sum"
        }

        fn run(&self, order: &[u8], seat: &mut Seat<'_>) -> Result<Ended> {
            let (rank, world) = (seat.mesh.rank(), seat.mesh.world());
            (seat.report)(vec![rank as u8]);
            match order {
                b"error" if rank == 1 => return Err(Error::invalid("block 7 cannot be read")),
                b"panic" if rank == 1 => panic!("the disk is on fire"),
                b"wait" => {
                    while !seat.cancel.is_cancelled() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    return Err(Error::Cancelled);
                }
                _ => {}
            }
            let mut sum = 0.0;
            let cuts = vec![0..0; world];
            let offer = Offer { header: &[rank as f64], planes: &[], plane: 0, cuts: &cuts };
            let tag = Tag { generation: seat.generation, step: 0, round: 0 };
            let exchanged = seat.mesh.exchange(tag, offer, &mut |parts| {
                sum = parts.iter().map(|part| part.header[0]).sum();
            });
            exchanged.map_err(|error: GangError| Error::invalid(error.to_string()))?;
            Ok(Ended::Done(vec![sum as u8, world as u8]))
        }
    }

    fn gangs() -> ThreadGangs {
        ThreadGangs {
            tasks: vec![Arc::new(Sum)],
            stores: Stores::new(),
            scratch: std::env::temp_dir(),
            threads: 3,
            memory: None,
        }
    }

    fn order(order: &str, workers: std::ops::RangeInclusive<usize>) -> GangOrder {
        GangOrder { task: "sum".into(), order: order.into(), workers, wait: Duration::ZERO }
    }

    #[tokio::test]
    async fn the_answer_is_rank_0s_and_reports_arrive() {
        for (workers, expected) in [(1..=usize::MAX, [3, 3]), (5..=5, [10, 5]), (1..=2, [1, 2])] {
            let heard = Mutex::new(Vec::new());
            let watch = |event| heard.lock().unwrap().push(event);
            let result = gangs().run(order("", workers), &CancellationToken::new(), &watch).await;
            assert_eq!(result.unwrap(), expected);
            let heard = heard.into_inner().unwrap();
            assert!(matches!(heard[0], GangEvent::Formed { generation: 1, .. }), "{heard:?}");
            assert_eq!(heard.len(), 1 + usize::from(expected[1]));
        }
    }

    #[tokio::test]
    async fn a_failed_rank_ends_the_run_with_its_cause() {
        for (how, expected) in [
            ("error", "block 7 cannot be read"),
            ("panic", "worker 1 of sum was stopped by a fault of the program: the disk is on fire"),
        ] {
            let result = gangs().run(order(how, 3..=3), &CancellationToken::new(), &|_| {}).await;
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
        let unknown = GangOrder { task: "nosuch".into(), ..order("", 1..=1) };
        let result = gangs().run(unknown, &CancellationToken::new(), &|_| {}).await;
        assert_eq!(result.unwrap_err().to_string(), "no gang task is called nosuch");
    }

    #[tokio::test]
    async fn a_cancelled_run_stops_its_ranks() {
        let cancel = CancellationToken::new();
        let gangs = gangs();
        let stop = |event| {
            if matches!(event, GangEvent::Report { .. }) {
                cancel.cancel();
            }
        };
        assert!(matches!(gangs.run(order("wait", 2..=2), &cancel, &stop).await, Err(Error::Cancelled)));
    }
}
