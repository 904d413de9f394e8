//! The process's allocator, and how soon it gives memory back to the system.

use std::ffi::{c_int, c_long};

// The system's allocator gives memory of one thread's batches back to another slowly; queries do little else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number for "how many milliseconds freed memory is kept for the next who wants it".
const PURGE_DELAY: c_int = 15;
/// Longer than most statements: what one operator has freed the next one takes without a fault for every page of it.
const LATE_MS: c_long = 60_000;
/// Short enough that a sort's memory is gone before the merge of its runs has filled up.
const SOON_MS: c_long = 10;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps freed memory for a minute: of the 22 queries of the benches that saves a fifth of the time, most of it the system's.
pub(crate) fn give_back_late() {
    set_delay(LATE_MS);
}

/// Gives freed memory back soon, for processes that were told how much they may take: what the allocator keeps for a second,
/// and what a huge page holds beside the few bytes that were asked for, counts against the limit in the eyes of whoever set
/// it. Costs a little time.
pub(crate) fn give_back_soon() {
    set_delay(SOON_MS);
    #[cfg(target_os = "linux")]
    // SAFETY: sets a flag of this process that tells the kernel how to fill memory from now on. A kernel that does not know
    // it answers with an error, and then nothing changes.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

fn set_delay(milliseconds: c_long) {
    // SAFETY: the function stores a number in a static table. mimalloc asks that no other thread changes options at the same
    // time: nobody else in this program does.
    unsafe { mi_option_set(PURGE_DELAY, milliseconds) }
}
