//! A run's lease as its coordinator holds it: asked for again every second, given back when this is dropped. A scheduler
//! that does not answer for [`SILENCE`], or that has forgotten the run, has given the workers to nobody or to others: the
//! run ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::conversation::SILENCE;
use super::lease::{LeaseAnswer, LeaseRequest, Member};
use super::task::GangEvent;
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};

/// How often the lease is asked for, and how often while it is waited for.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_WAITING: Duration = Duration::from_millis(100);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Renewal {
    client: ClusterClient,
    wanted: watch::Sender<LeaseRequest>,
    heard: watch::Receiver<Heard>,
    task: JoinHandle<()>,
}

#[derive(Clone, Default)]
enum Heard {
    #[default]
    Nothing,
    Answer(Arc<LeaseAnswer>),
    Lost(String),
}

impl Renewal {
    /// Begins to ask.
    pub(super) fn new(client: ClusterClient, request: LeaseRequest) -> Self {
        let (wanted, requests) = watch::channel(request);
        let (answers, heard) = watch::channel(Heard::Nothing);
        let task = tokio::spawn(renew(client.clone(), requests, answers));
        Renewal { client, wanted, heard, task }
    }

    /// Waits for the workers of the request's generation.
    ///
    /// # Errors
    /// Too few for too long; a scheduler that is lost.
    pub(super) async fn acquire(
        &mut self,
        request: LeaseRequest,
        watch: &(dyn Fn(GangEvent) + Send + Sync),
    ) -> Result<Vec<Member>> {
        let (generation, least) = (request.generation, request.least);
        self.wanted.send_replace(request);
        let mut told = None;
        loop {
            let heard = self.heard.borrow_and_update().clone();
            match heard {
                Heard::Nothing => {}
                Heard::Lost(cause) => return Err(Error::Cluster(cause)),
                Heard::Answer(answer) => match answer.as_ref() {
                    LeaseAnswer::Granted { generation: granted, members } if *granted == generation => {
                        return Ok(members.clone());
                    }
                    LeaseAnswer::Granted { .. } => {}
                    LeaseAnswer::Waiting { ahead, have } => {
                        if *have >= least && *ahead > 0 && told != Some(*ahead) {
                            told = Some(*ahead);
                            watch(GangEvent::Queued { ahead: *ahead });
                        }
                    }
                    LeaseAnswer::Short { have } => return Err(short(least, *have)),
                },
            }
            if self.heard.changed().await.is_err() {
                return Err(Error::Cancelled);
            }
        }
    }

    /// Ends when these workers do not work for this generation any more.
    pub(super) async fn lost(&mut self, generation: u32, members: &[Member]) -> Error {
        loop {
            match self.heard.borrow_and_update().clone() {
                Heard::Lost(cause) => return Error::Cluster(cause),
                Heard::Answer(answer) if !is_lease_of(&answer, generation, members) => {
                    let address = self.client.address();
                    return Error::Cluster(format!(
                        "the scheduler at {address} has forgotten the run: it was started again"
                    ));
                }
                _ => {}
            }
            if self.heard.changed().await.is_err() {
                return Error::Cancelled;
            }
        }
    }
}

fn is_lease_of(answer: &LeaseAnswer, generation: u32, members: &[Member]) -> bool {
    let LeaseAnswer::Granted { generation: granted, members: held } = answer else { return false };
    *granted == generation && held.iter().map(|member| &member.id).eq(members.iter().map(|member| &member.id))
}

fn short(least: usize, have: usize) -> Error {
    let workers = if least == 1 { "worker" } else { "workers" };
    Error::invalid(format!("a gang of at least {least} {workers} is wanted, the cluster has {have}"))
        .with_hint("start more executors, or ask for fewer workers")
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let client = self.client.clone();
        let run = self.wanted.borrow().run.clone();
        runtime.spawn(async move {
            let (http, url) = client.http(&format!("gangs/leases/{run}"));
            // A scheduler that does not hear it frees the workers when nobody asks for them any more.
            let _ = http.delete(url).timeout(REQUEST).send().await;
        });
    }
}

async fn renew(client: ClusterClient, mut requests: watch::Receiver<LeaseRequest>, answers: watch::Sender<Heard>) {
    let mut answered = Instant::now();
    loop {
        let request = requests.borrow_and_update().clone();
        let (http, url) = client.http("gangs/leases");
        let answer = client.answer::<LeaseAnswer>(http.post(url).timeout(REQUEST).json(&request)).await;
        let pause = match answer {
            Ok(answer) => {
                answered = Instant::now();
                let is_granted = matches!(answer, LeaseAnswer::Granted { .. });
                answers.send_replace(Heard::Answer(Arc::new(answer)));
                if is_granted { EVERY } else { EVERY_WAITING }
            }
            Err(error) if answered.elapsed() > SILENCE || !matches!(error, Error::Cluster(_)) => {
                answers.send_replace(Heard::Lost(error.to_string()));
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the lease of workers could not be renewed; it is tried again");
                EVERY_WAITING
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = requests.changed() => if changed.is_err() { return },
        }
    }
}
