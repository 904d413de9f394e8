//! Work on a thread of its own, and who waits for it. A planner in a hot loop, or a reader that never pauses, hears of no
//! cancellation; whoever waits does, and gives it up when it has not come up for air for a while. The thread is then left
//! to itself, and goes with the process. Neither does such work hold up the threads that serve others.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::fault::kept;

/// Planning recurses with the depth of a query; what is not used of a stack takes no memory.
const STACK: usize = 256 << 20;
/// How often the waiting side looks whether the work was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long cancelled work may stay away without a pause.
const PATIENCE: Duration = Duration::from_millis(600);

thread_local! {
    static ROOMY: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's stack holds expressions of thousands of levels: those of [`Work`] do, those of a program that calls
/// the library may not.
pub(crate) fn is_roomy() -> bool {
    ROOMY.get()
}

/// See the module.
pub struct Work<T> {
    done: Receiver<Result<T>>,
    pulse: Pulse,
}

impl<T: Send + 'static> Work<T> {
    /// Begins. What the work spawns is run by `runtime`.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn begin(runtime: &Handle, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<Self> {
        let (pulse, (report, done)) = (Pulse::default(), sync_channel(1));
        let (runtime, watched) = (runtime.clone(), Watched { work: Box::pin(kept(work)), pulse: pulse.clone() });
        let thread = std::thread::Builder::new().name("statement".to_string()).stack_size(STACK);
        let spawned = thread.spawn(move || {
            ROOMY.set(true);
            // Nobody listens any more when it was given up.
            let _ = report.send(runtime.block_on(watched));
        });
        spawned.map_err(|error| Error::Usage(format!("cannot start a thread: {error}")))?;
        Ok(Work { done, pulse })
    }

    /// Waits for the end, with this thread.
    ///
    /// # Errors
    /// What the work meets; [`Error::Cancelled`] when it was cancelled and does not end.
    pub fn wait(self, cancel: &CancellationToken) -> Result<T> {
        let mut cancelled = None;
        loop {
            match self.done.recv_timeout(LOOK_EVERY) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Fault("the thread of a statement has ended without a word".to_string()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if cancel.is_cancelled() {
                let since = *cancelled.get_or_insert_with(Instant::now);
                if self.pulse.absent().is_some_and(|absent| absent.min(since.elapsed()) > PATIENCE) {
                    return Err(Error::Cancelled);
                }
            }
        }
    }
}

/// Since when work is away, as long as it is.
#[derive(Clone, Default)]
struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    fn set(&self, away: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = away;
    }

    fn absent(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}

struct Watched<F> {
    work: Pin<Box<F>>,
    pulse: Pulse,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.pulse.set(Some(Instant::now()));
        let polled = self.work.as_mut().poll(context);
        self.pulse.set(None);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hears_nothing_is_given_up() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cancel = CancellationToken::new();
        let begin = |work| Work::begin(runtime.handle(), work).unwrap();
        assert_eq!(
            begin(Box::pin(async { Ok(1) }) as Pin<Box<dyn Future<Output = Result<i32>> + Send>>)
                .wait(&cancel)
                .unwrap(),
            1
        );
        let deaf = begin(Box::pin(async {
            std::thread::sleep(Duration::from_secs(20));
            Ok(2)
        }));
        let polite = begin(Box::pin(async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            Ok(3)
        }));
        cancel.cancel();
        let begun = Instant::now();
        assert!(matches!(deaf.wait(&cancel), Err(Error::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(polite.wait(&cancel).unwrap(), 3);
        runtime.shutdown_background();
    }
}
