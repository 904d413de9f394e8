//! `gristmill scheduler`: gives out the tasks of a cluster, until it is told to end.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use engine::cluster::{ClusterAddress, ClusterClient, Environment, Scheduler, SchedulerSettings, StateLock};
use engine::{Error, Options, Result};
use tokio::net::TcpListener;

use super::Console;
use crate::args::SchedulerArgs;
use crate::diagnostic::Exit;
use crate::serve::{self, Served};

pub(super) fn scheduler(console: &Console, args: &SchedulerArgs) -> Result<Exit> {
    let served = console.wait(serve_scheduler(console, args));
    served.map(|()| Exit::Ok)
}

async fn serve_scheduler(console: &Console, args: &SchedulerArgs) -> Result<()> {
    let wanted = socket_address(&args.bind)?;
    let refused = |error: std::io::Error| Error::Usage(format!("cannot listen at {wanted}: {error}"));
    let listener = TcpListener::bind(wanted).await.map_err(refused)?;
    let listen = listener.local_addr().map_err(refused)?;
    let advertise = args.advertise.clone().unwrap_or_else(|| reachable(listen));
    let environment =
        Environment::new(storage::Stores::with(console.config.options.stores.clone()), gristmill::extension());
    let state_dir = args.state_dir.clone().map_or_else(default_state_dir, Ok)?;
    let address = ClusterAddress::new(advertise.clone(), listen.port());
    let _lock = StateLock::take(&state_dir, &format!("the scheduler at {address}"))?;
    let settings = SchedulerSettings { listen, advertise };
    let scheduler = Scheduler::start(&settings, &environment).await?;
    console.remark(&format!("scheduler at {address}"));
    if !listen.ip().is_loopback() {
        console.remark("anybody who reaches this port can run queries: keep it inside a trusted network");
    }
    let own = if listen.ip().is_unspecified() { "127.0.0.1".to_string() } else { listen.ip().to_string() };
    let display = console.display.clone();
    let served = Served {
        scheduler,
        environment,
        client: ClusterClient::new(ClusterAddress::new(own, listen.port())),
        options: job_options(console)?,
        state_dir,
        tell: Arc::new(move |text: &str| display.line(text)),
    };
    serve::serve(listener, served, console.interrupt.token()).await
}

/// For jobs that say nothing else. A warehouse that the scheduler was given is where the scheduler is; the default one is
/// where the job is.
fn job_options(console: &Console) -> Result<Options> {
    let mut options = console.config.options.clone();
    if options.warehouse != Options::default().warehouse {
        options.warehouse = options.place(&options.warehouse)?.to_string();
    }
    Ok(options)
}

/// Beside the shell's history.
fn default_state_dir() -> Result<PathBuf> {
    let dirs = directories::BaseDirs::new();
    let state = dirs.as_ref().map(|dirs| dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()));
    let state = state.ok_or_else(|| Error::Usage("--state-dir: there is no home directory to keep it in".into()))?;
    Ok(state.join("gristmill").join("scheduler"))
}

/// The address that text such as `0.0.0.0:50050` or `localhost:50050` means.
///
/// # Errors
/// Text that is none, a name that nobody knows.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr> {
    let wrong = |reason: String| Error::Usage(format!("--bind {text}: {reason}"));
    let mut found = text.to_socket_addrs().map_err(|error| wrong(format!("expected HOST:PORT ({error})")))?;
    found.next().ok_or_else(|| wrong("no such host".to_string()))
}

/// Under which name a listener can be reached: every address means this machine's own name.
fn reachable(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() { "localhost".to_string() } else { listen.ip().to_string() }
}
