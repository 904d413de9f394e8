//! `gristmill executor`: runs the tasks of a cluster, until it is told to end.

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
