//! Ctrl-C once stops the job and cleans up; twice leaves at once, with nothing but the temporary files removed. Being asked
//! to end is the same with another exit code, and so is a terminal that goes away. What the caller ignores stays ignored:
//! `nohup` wants no hang-ups, a shell script no interrupts for its background jobs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tokio::signal::unix::{Signal, SignalKind, signal};
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
        let (listening, heard) = mpsc::channel();
        // Without the thread the signals keep their default: the process ends, which is what was asked.
        let _ = std::thread::Builder::new().name("signals".to_string()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(watcher.listen(say, listening));
        });
        // Nothing is begun that an early signal would leave behind. A thread that does not come to listen hangs up.
        let _ = heard.recv();
        interrupt
    }

    async fn listen(&self, say: impl Fn(&str), listening: mpsc::Sender<()>) {
        let mut interrupt = unless_ignored(SignalKind::interrupt());
        let mut terminate = unless_ignored(SignalKind::terminate());
        let mut hang_up = unless_ignored(SignalKind::hangup());
        drop(listening);
        loop {
            tokio::select! {
                () = next(&mut interrupt) => {
                    if self.state.interrupts.fetch_add(1, Ordering::SeqCst) > 0 {
                        self.leave(Exit::Interrupted);
                    }
                    say("stopping and cleaning up; Ctrl-C again leaves at once");
                }
                () = next(&mut terminate) => {
                    let again = self.state.terminated.fetch_add(1, Ordering::SeqCst) > 0;
                    if again || self.state.idle.load(Ordering::SeqCst) {
                        self.leave(Exit::Cancelled);
                    }
                    say("asked to end: stopping and cleaning up");
                }
                // Shell and kernel may both say that the terminal is gone: a second time is no second wish.
                () = next(&mut hang_up) => {
                    if self.state.idle.load(Ordering::SeqCst) {
                        self.leave(Exit::Cancelled);
                    }
                    say("the terminal is gone: stopping and cleaning up");
                }
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

/// Listens to a signal, unless whoever started this process has it ignored.
fn unless_ignored(kind: SignalKind) -> Option<Signal> {
    if is_ignored(kind) { None } else { signal(kind).ok() }
}

fn is_ignored(kind: SignalKind) -> bool {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for what is in place, and writes it into a structure of ours.
    let asked = unsafe { libc::sigaction(kind.as_raw_value(), std::ptr::null(), &mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// Waits for the signal; for ever when nobody listens to it.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
