//! What a job's work cost in energy: measured by the processor's own counters where they can be read (RAPL), estimated
//! from processor time otherwise. Always with its method, never a bare number.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The counters' directory on Linux.
const POWERCAP: &str = "/sys/class/powercap";

/// Joules, and how they are known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Energy {
    /// Measured on the whole processor: other processes' work and idle cores are in it.
    Rapl { joules: f64 },
    /// Processor time times watts a core: a low, a middle and a high guess.
    CpuTimeEstimate { joules: [f64; 3], watts_per_core: [f64; 3] },
}

impl Energy {
    /// The estimate from processor time.
    pub(crate) fn estimate(cpu: Duration, watts_per_core: [f64; 3]) -> Self {
        let joules = watts_per_core.map(|watts| watts * cpu.as_secs_f64());
        Energy::CpuTimeEstimate { joules, watts_per_core }
    }

    /// One line for the report.
    pub(crate) fn line(&self) -> String {
        match self {
            Energy::Rapl { joules } => format!("{} (rapl: measured, whole processor)", energy_text(*joules)),
            Energy::CpuTimeEstimate { joules: [low, mid, high], watts_per_core: [wl, wm, wh] } => format!(
                "{} / {} / {} low / mid / high (cputime_estimate: CPU seconds x {wl} / {wm} / {wh} W a core)",
                energy_text(*low),
                energy_text(*mid),
                energy_text(*high)
            ),
        }
    }
}

fn energy_text(joules: f64) -> String {
    match joules {
        joules if joules >= 3.6e6 => format!("{:.2} kWh", joules / 3.6e6),
        joules if joules >= 1e4 => format!("{:.1} kJ", joules / 1e3),
        joules if joules >= 10.0 => format!("{joules:.0} J"),
        joules => format!("{joules:.1} J"),
    }
}

/// Reads the processor's energy counters at two moments.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Counter file, its value at the start and the value at which it wraps, all in microjoules.
    counters: Vec<(PathBuf, u64, u64)>,
}

impl Meter {
    /// Starts measuring; on most systems only root may read the counters, then there is nothing to measure.
    pub(crate) fn start() -> Self {
        Meter::start_in(Path::new(POWERCAP))
    }

    fn start_in(root: &Path) -> Self {
        let Ok(entries) = fs::read_dir(root) else { return Meter { counters: vec![] } };
        // `intel-rapl:0` is a package; `intel-rapl:0:1` is a part of it and would be counted twice.
        let is_package = |name: &str| name.starts_with("intel-rapl:") && name.matches(':').count() == 1;
        let counters = entries
            .flatten()
            .filter(|entry| is_package(&entry.file_name().to_string_lossy()))
            .filter_map(|entry| {
                let file = entry.path().join("energy_uj");
                let start = read_number(&file)?;
                let wrap = read_number(&entry.path().join("max_energy_range_uj"))?;
                Some((file, start, wrap))
            })
            .collect();
        Meter { counters }
    }

    /// Joules since the start, when every counter could be read both times. A job longer than a counter's whole range
    /// (an hour or so under load) would be told too little.
    pub(crate) fn joules(&self) -> Option<f64> {
        if self.counters.is_empty() {
            return None;
        }
        let used = self.counters.iter().map(|(file, start, wrap)| {
            let now = read_number(file)?;
            Some(if now >= *start { now - start } else { now + wrap.saturating_sub(*start) })
        });
        used.sum::<Option<u64>>().filter(|microjoules| *microjoules > 0).map(|microjoules| microjoules as f64 / 1e6)
    }
}

fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_labelled_and_has_three_guesses() {
        let energy = Energy::estimate(Duration::from_secs_f64(12.5), [2.0, 5.0, 12.0]);
        assert_eq!(
            energy.line(),
            "25 J / 62 J / 150 J low / mid / high (cputime_estimate: CPU seconds x 2 / 5 / 12 W a core)"
        );
    }

    #[test]
    fn energies() {
        for (joules, text) in
            [(0.05, "0.1 J"), (9.94, "9.9 J"), (123.4, "123 J"), (12_345.0, "12.3 kJ"), (7.2e6, "2.00 kWh")]
        {
            assert_eq!(energy_text(joules), text);
        }
    }

    #[test]
    fn packages_are_summed_and_a_wrapped_counter_is_mended() {
        let root = tempfile::tempdir().unwrap();
        let write = |package: &str, used: u64| {
            let directory = root.path().join(package);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("energy_uj"), format!("{used}\n")).unwrap();
            fs::write(directory.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        write("intel-rapl:0", 1_000_000);
        write("intel-rapl:1", 9_000_000);
        write("intel-rapl:0:0", 5);
        let meter = Meter::start_in(root.path());
        assert_eq!(meter.joules(), None, "no work yet");
        write("intel-rapl:0", 3_500_000);
        write("intel-rapl:1", 500_000);
        assert_eq!(meter.joules(), Some(2.5 + 1.5));
        assert_eq!(Meter::start_in(&root.path().join("none")).joules(), None);
    }
}
