//! Named places where a test may kill the process or fill the disk.
//!
//! Without the feature `testing` every call here compiles to nothing. With it, `GRISTMILL_CRASH_AT=<point>` aborts the
//! process when the point is reached, `<point>:<n>` the n-th time, and `GRISTMILL_DISK_BYTES=<n>` lets the local store
//! write n bytes and then report a full disk.

/// Every point of the commit and artifact protocols, in the order in which they are reached.
#[cfg(any(test, feature = "testing"))]
pub const POINTS: &[&str] = &[
    "commit.begun",
    "commit.baseline",
    "commit.planned",
    "commit.renamed_one",
    "commit.renamed",
    "commit.manifest",
    "commit.replaced_deleted",
    "commit.success_marked",
    "commit.staging_removed",
    "artifact.begun",
    "artifact.written_one",
    "artifact.written",
    "artifact.manifest",
    "local.temporary_open",
    "local.temporary_written",
    "local.temporary_synced",
    "local.published",
];

/// Dies here when the test asked for it.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);
    debug_assert!(POINTS.contains(&name), "fault point {name} is missing from the list");
    let wanted = WANTED.get_or_init(|| {
        let text = variable("GRISTMILL_CRASH_AT")?;
        Some(match text.split_once(':') {
            Some((point, n)) => (point.to_string(), n.parse().expect("GRISTMILL_CRASH_AT=<point>:<n>")),
            None => (text, 1),
        })
    });
    if let Some((point, n)) = wanted
        && point == name
        && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *n
    {
        std::process::abort();
    }
}

/// No fault points in an ordinary build.
#[cfg(not(any(test, feature = "testing")))]
#[inline(always)]
pub(crate) fn point(_name: &str) {}

/// Takes `bytes` from the pretended disk.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn write(bytes: usize) -> std::io::Result<()> {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    static LEFT: OnceLock<Option<AtomicI64>> = OnceLock::new();
    let left = LEFT.get_or_init(|| {
        variable("GRISTMILL_DISK_BYTES").map(|text| AtomicI64::new(text.parse().expect("GRISTMILL_DISK_BYTES=<n>")))
    });
    match left {
        Some(left) if left.fetch_sub(bytes as i64, Ordering::SeqCst) < bytes as i64 => {
            Err(std::io::Error::from_raw_os_error(libc::ENOSPC))
        }
        _ => Ok(()),
    }
}

/// The disk is as large as it is.
#[cfg(not(any(test, feature = "testing")))]
#[inline(always)]
pub(crate) fn write(_bytes: usize) -> std::io::Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "testing"))]
#[allow(clippy::disallowed_methods, reason = "a test steers its child process; never read in an ordinary build")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
