//! `gristmill executor`: runs the tasks of a cluster, until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use engine::cluster::{Environment, ExecutorSettings, run_executor};
use engine::options::parse_bytes;
use engine::{Error, Result};

use super::Console;
use crate::args::ExecutorArgs;
use crate::diagnostic::Exit;

/// Below this an executor's memory is too little to keep what is freed.
const SCARCE: u64 = 1 << 30;

pub(super) fn executor(console: &Console, args: ExecutorArgs) -> Result<Exit> {
    let memory = args.memory.as_deref().map(parse_bytes).transpose();
    let (display, name) = (console.display.clone(), args.id.as_ref().map_or_else(String::new, |id| format!("{id}: ")));
    let settings = ExecutorSettings {
        scheduler: args.scheduler.parse()?,
        id: args.id,
        bind: args.bind,
        advertise: args.advertise.unwrap_or_else(|| args.bind.to_string()),
        ports: (args.port, args.task_port),
        gang_port: args.gang_port,
        cores: args.cores.unwrap_or(console.config.options.threads),
        memory: memory.map_err(|reason| Error::Usage(format!("--memory: {reason}")))?,
        work_dir: args.work_dir,
        give_up_after: args.give_up_after.as_deref().map(time).transpose()?,
        tell: Arc::new(move |text: &str| display.line(&format!("{name}{text}"))),
    };
    if settings.memory.is_some_and(|bytes| bytes < SCARCE) {
        crate::allocator::give_back_soon();
    }
    if settings.cores == 0 {
        return Err(Error::Usage("--cores: expected a whole number above 0, got `0`".to_string()));
    }
    console.remark(&format!("executor for {}", settings.scheduler));
    let environment =
        Environment::new(storage::Stores::with(console.config.options.stores.clone()), gristmill::extension());
    console.wait(run_executor(settings, &environment)).map(|()| Exit::Ok)
}

/// A time such as `90s`, `10m` or `2h`.
fn time(text: &str) -> Result<Duration> {
    let wrong = || Error::Usage(format!("--give-up-after: expected a time such as 90s, 10m or 2h, got `{text}`"));
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(time(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "m", "1.5h", "-1s", "3d", "99999999999999999h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
