//! Ctrl-C once stops the job and cleans up; twice leaves at once, with nothing but the temporary files removed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::diagnostic::Exit;

/// Watches the signals of this process. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    interrupts: AtomicUsize,
    terminated: AtomicUsize,
    /// The shell waits for its user: there is nothing to stop, and being asked to end means to end.
    idle: AtomicBool,
    /// Cancels what runs now; the shell puts a fresh one in place for every statement.
    token: Mutex<CancellationToken>,
    /// Removed before leaving at once.
    temporary: Mutex<Option<PathBuf>>,
}

impl Interrupt {
    /// Begins to watch, on a thread of its own: a query that keeps every worker busy must not keep Ctrl-C waiting. `say`
    /// tells the user what the first signal has begun.
    pub(crate) fn watch(say: impl Fn(&str) + Send + 'static) -> Self {
        let interrupt = Interrupt::default();
        let watcher = interrupt.clone();
        // Without the thread the signals keep their default: the process ends, which is what was asked.
        let _ = std::thread::Builder::new().name("signals".to_string()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(watcher.listen(say));
        });
        interrupt
    }

    async fn listen(&self, say: impl Fn(&str)) {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        let Ok(mut hang_up) = signal(SignalKind::hangup()) else { return };
        loop {
            tokio::select! {
                pressed = tokio::signal::ctrl_c() => {
                    if pressed.is_err() {
                        return;
                    }
                    if self.state.interrupts.fetch_add(1, Ordering::SeqCst) > 0 {
                        self.leave(Exit::Interrupted);
                    }
                    say("stopping and cleaning up; Ctrl-C again leaves at once");
                }
                _ = terminate.recv() => {
                    let again = self.state.terminated.fetch_add(1, Ordering::SeqCst) > 0;
                    if again || self.state.idle.load(Ordering::SeqCst) {
                        self.leave(Exit::Cancelled);
                    }
                    say("asked to end: stopping and cleaning up");
                }
                // The terminal is gone, and nobody with it.
                _ = hang_up.recv() => self.leave(Exit::Cancelled),
            }
            self.cancel();
        }
    }

    fn cancel(&self) {
        if let Ok(token) = self.state.token.lock() {
            token.cancel();
        }
    }

    fn leave(&self, exit: Exit) -> ! {
        self.remove_temporary();
        crate::terminal::restore();
        std::process::exit(exit as i32);
    }

    /// Removes the session's directory when work that was cancelled still holds on to the session.
    pub(crate) fn remove_temporary(&self) {
        let temporary = self.state.temporary.lock().ok().and_then(|mut path| path.take());
        if let Some(path) = temporary {
            // Leaving matters more than tidiness: what cannot be removed stays for the system's own cleaning.
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// Names the directory that leaving at once must not leave behind.
    pub(crate) fn remove_on_leaving(&self, directory: PathBuf) {
        if let Ok(mut temporary) = self.state.temporary.lock() {
            *temporary = Some(directory);
        }
    }

    /// The token that the next signal cancels.
    pub(crate) fn token(&self) -> CancellationToken {
        self.state.token.lock().map(|token| token.clone()).unwrap_or_default()
    }

    /// Forgets the signals so far and makes a fresh token, for the shell's next statement.
    pub(crate) fn renew(&self) -> CancellationToken {
        self.state.interrupts.store(0, Ordering::SeqCst);
        let fresh = CancellationToken::new();
        if let Ok(mut token) = self.state.token.lock() {
            *token = fresh.clone();
        }
        fresh
    }

    /// Says whether the shell waits for its user.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.state.idle.store(idle, Ordering::SeqCst);
    }

    /// Whether Ctrl-C was pressed since the last renewal.
    pub(crate) fn was_pressed(&self) -> bool {
        self.state.interrupts.load(Ordering::SeqCst) > 0
    }
}
