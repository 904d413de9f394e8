//! What the process has used: processor time and memory, as the system counts them.

use std::time::Duration;

/// Processor time and peak memory of this process since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user and kernel mode, all threads.
    pub cpu: Duration,
    /// The largest resident set so far.
    pub peak_rss_bytes: u64,
}

impl Usage {
    /// As of now.
    pub fn now() -> Usage {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage writes a whole rusage to the pointer it is given, and all-zero bytes are a valid rusage if it
        // fails.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let kilobytes = u64::try_from(usage.ru_maxrss).unwrap_or(0);
        // Linux counts in kilobytes, macOS in bytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        let peak_rss_bytes = peak_of_this_program().unwrap_or(kilobytes * unit);
        Usage { cpu: duration(usage.ru_utime) + duration(usage.ru_stime), peak_rss_bytes }
    }

    /// Processor time used since an earlier moment; the peak is the process's own.
    #[must_use]
    pub fn since(self, earlier: Usage) -> Usage {
        Usage { cpu: self.cpu.saturating_sub(earlier.cpu), peak_rss_bytes: self.peak_rss_bytes }
    }
}

/// The peak since this program began. What `getrusage` tells on Linux goes back further: to the process that started us,
/// which may have been larger.
fn peak_of_this_program() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted() {
        let before = Usage::now();
        let data: Vec<u64> = (0..(8 << 20)).map(std::hint::black_box).collect();
        let mut sum = 0u64;
        while Usage::now().since(before).cpu < Duration::from_millis(10) {
            sum = data.iter().fold(sum, |sum, value| sum.wrapping_mul(31).wrapping_add(*value));
        }
        std::hint::black_box(sum);
        assert!(Usage::now().peak_rss_bytes >= 64 << 20);
    }
}
