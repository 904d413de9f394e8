//! The terminal's own echo of `^C`, which would move the cursor under the progress bars and leave half of them standing.

use std::sync::{Mutex, PoisonError};

/// The terminal's settings from before, while the echo is off.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

/// Turns the echo of control characters off until [`restore`]; does nothing where stdin is no terminal.
pub(crate) fn hide_control_echo() {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: tcgetattr writes a whole termios or fails; zeroed bytes are a valid termios, and on failure it is not used.
    let settings = unsafe {
        if libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) != 0 {
            return;
        }
        settings.assume_init()
    };
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
    let mut hidden = settings;
    hidden.c_lflag &= !libc::ECHOCTL;
    set(&hidden);
}

/// Gives the terminal back as it was.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        set(&before);
    }
}

fn set(settings: &libc::termios) {
    // SAFETY: tcsetattr reads one termios from a valid reference. A failure leaves the terminal as it is, which is safe.
    unsafe {
        libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings);
    }
}
