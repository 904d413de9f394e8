//! Gangs of a cluster: the coordinator, in the driver's process. It leases workers from the scheduler, begins a rank on
//! each, hears how they fare, and forms the next generation when one ends before its time. What follows from what is
//! decided in [`super::supervision`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::control::{self, Begin, FromRank, Halted, How, LENGTHS, MAGIC, RankError, ToRank};
use super::conversation::SILENCE;
use super::lease::{LeaseRequest, Member};
use super::renewal::Renewal;
use super::supervision::{End, Supervision, Verdict, Worker};
use super::task::{GangEvent, GangOrder, Gangs};
use super::tcp::BEAT;
use super::{GangError, Rank};
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};

/// How long a worker may take to answer the telephone.
const CONNECT: Duration = Duration::from_secs(3);
/// How long ranks that were halted may take to end before they count as lost. They look at least between two exchanges.
const HALT_WAIT: Duration = Duration::from_secs(120);
/// How long a run that was cancelled waits for its ranks.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
/// How long a run that has lost its last worker waits for another at least: one that was started again needs a moment.
const REPLACEMENT_WAIT_MS: u64 = 20_000;
/// What ranks say that waits for the coordinator.
const HEARD: usize = 256;

/// See the module.
pub(crate) struct ClusterGangs {
    client: ClusterClient,
}

impl ClusterGangs {
    /// Of the cluster of this scheduler.
    pub(crate) fn new(client: ClusterClient) -> Self {
        ClusterGangs { client }
    }
}

#[async_trait]
impl Gangs for ClusterGangs {
    async fn run(
        &self,
        order: GangOrder,
        cancel: &CancellationToken,
        watch: &(dyn Fn(GangEvent) + Send + Sync),
    ) -> Result<Vec<u8>> {
        let mut supervision = Supervision::new();
        let run = uuid::Uuid::now_v7().to_string();
        let body: Arc<[u8]> = order.order.into();
        let mut request = LeaseRequest {
            run: run.clone(),
            generation: supervision.next(),
            least: (*order.workers.start()).max(1),
            most: *order.workers.end(),
            wait_ms: u64::try_from(order.wait.as_millis()).unwrap_or(u64::MAX),
            avoid: Vec::new(),
        };
        let mut renewal = Renewal::new(self.client.clone(), request.clone());
        loop {
            let members = tokio::select! {
                () = cancel.cancelled() => return Err(Error::Cancelled),
                members = renewal.acquire(request.clone(), watch) => members?,
            };
            let worker = |member: &Member| Worker { name: member.id.clone(), incarnation: member.incarnation.clone() };
            watch(supervision.formed(members.iter().map(worker).collect()));
            let begin = Begin {
                run: run.clone(),
                generation: supervision.generation(),
                rank: 0,
                task: order.task.clone(),
                peers: members.iter().map(|member| (member.host.clone(), member.port)).collect(),
            };
            let mut generation = Generation::begin(&begin, &body);
            let verdict = tokio::select! {
                verdict = generation.run(&mut supervision, watch) => verdict,
                error = renewal.lost(begin.generation, &members) => return Err(error),
                () = cancel.cancelled() => {
                    generation.halt(&GangError::Cancelled);
                    let _ = timeout(CANCEL_WAIT, generation.run(&mut supervision, &|_| {})).await;
                    return Err(Error::Cancelled);
                }
            };
            match verdict {
                Verdict::Done(result) => return Ok(result),
                Verdict::Failed(error) => return Err(error.into()),
                Verdict::Stuck { step, cause } => return Err(stuck(step, &cause)),
                Verdict::Again => {
                    request.avoid = supervision.avoid();
                    request.generation = supervision.next();
                    request.least = 1;
                    request.wait_ms = request.wait_ms.max(REPLACEMENT_WAIT_MS);
                }
            }
        }
    }

    async fn available(&self) -> Result<usize> {
        let (http, url) = self.client.http("gangs/members");
        self.client.answer(http.get(url)).await
    }

    fn is_local(&self) -> bool {
        false
    }
}

fn stuck(step: Option<u64>, cause: &str) -> Error {
    let place = step.map_or("before the first step".to_string(), |step| format!("after step {}", step + 1));
    Error::Cluster(format!("three generations of workers in a row ended {place}: {cause}"))
}

/// What the coordinator hears.
enum Heard {
    Message(FromRank, Vec<u8>),
    Lost(String),
}

/// The ranks of one generation. Dropped, their connections close and they end.
struct Generation {
    tasks: JoinSet<()>,
    commands: Vec<mpsc::Sender<Halted>>,
    heard: mpsc::Receiver<(Rank, Heard)>,
    /// When ranks that were halted count as lost.
    deadline: Option<Instant>,
}

impl Generation {
    fn begin(begin: &Begin, order: &Arc<[u8]>) -> Self {
        let (send, heard) = mpsc::channel(HEARD);
        let mut tasks = JoinSet::new();
        let mut commands = Vec::new();
        for rank in 0..begin.peers.len() {
            let (command, halts) = mpsc::channel(1);
            commands.push(command);
            let begin = Begin { rank, ..begin.clone() };
            let (order, send) = (Arc::clone(order), send.clone());
            tasks.spawn(async move {
                if let Err(cause) = converse(&begin, &order, &send, halts).await {
                    // Nobody listens any more when the run has ended.
                    let _ = send.send((begin.rank, Heard::Lost(cause))).await;
                }
            });
        }
        Generation { tasks, commands, heard, deadline: None }
    }

    /// Tells all ranks that the generation is over.
    fn halt(&mut self, cause: &GangError) {
        for command in &self.commands {
            // One is enough, and a rank that has ended needs none.
            let _ = command.try_send(Halted::from(cause));
        }
        self.deadline.get_or_insert(Instant::now() + HALT_WAIT);
    }

    /// Listens until all ranks have ended.
    async fn run(
        &mut self,
        supervision: &mut Supervision<RankError>,
        watch: &(dyn Fn(GangEvent) + Send + Sync),
    ) -> Verdict<RankError> {
        loop {
            if let Some(verdict) = supervision.verdict() {
                return verdict;
            }
            let (rank, end) = match self.next().await {
                Some((_, Heard::Message(FromRank::Beat { step }, _))) => {
                    supervision.progressed(step);
                    continue;
                }
                Some((rank, Heard::Message(FromRank::Report, bytes))) => {
                    watch(GangEvent::Report { rank, bytes });
                    continue;
                }
                Some((rank, Heard::Message(FromRank::Ended { step, how }, result))) => {
                    supervision.progressed(step);
                    (rank, end(how, result))
                }
                Some((rank, Heard::Lost(cause))) => (rank, End::Lost { cause }),
                None => match supervision.running().next() {
                    Some(rank) => (rank, End::Lost { cause: "it does not end when it is told to".to_string() }),
                    None => continue,
                },
            };
            let (event, halt) = supervision.ended(rank, end);
            event.into_iter().for_each(watch);
            if let Some(cause) = halt {
                self.halt(&cause);
            }
        }
    }

    /// What is heard next; `None` when a halted rank takes too long.
    async fn next(&mut self) -> Option<(Rank, Heard)> {
        match self.deadline {
            None => self.heard.recv().await,
            Some(deadline) => tokio::time::timeout_at(deadline, self.heard.recv()).await.ok().flatten(),
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

fn end(how: How, result: Vec<u8>) -> End<RankError> {
    match how {
        How::Done => End::Done(result),
        How::Left { own } => End::Left { own },
        How::Failed(error) => End::Failed(error),
        How::Broken { cause, suspect } => End::Broken { cause, suspect },
    }
}

/// Begins a rank and hears it to its end.
async fn converse(
    begin: &Begin,
    order: &[u8],
    send: &mpsc::Sender<(Rank, Heard)>,
    mut halts: mpsc::Receiver<Halted>,
) -> Result<(), String> {
    let (host, port) = &begin.peers[begin.rank];
    let connect = timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await;
    let unreachable = |cause: &dyn std::fmt::Display| format!("{host}:{port} cannot be reached: {cause}");
    let stream = connect.map_err(|_| unreachable(&"no answer"))?.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let (reader, mut writer) = stream.into_split();
    let mut first = MAGIC.to_vec();
    let message = control::encode(&ToRank::Begin(begin.clone()), order).map_err(|error| error.to_string())?;
    first.extend_from_slice(&message);
    write(&mut writer, &first).await?;
    let hearing = hear(reader, begin.rank, send);
    tokio::pin!(hearing);
    let mut beats = tokio::time::interval(BEAT);
    loop {
        let message = tokio::select! {
            heard = &mut hearing => return heard,
            _ = beats.tick() => ToRank::Beat,
            Some(halted) = halts.recv() => ToRank::Halt(halted),
        };
        let bytes = control::encode(&message, &[]).map_err(|error| error.to_string())?;
        // A rank that has ended has closed its connection, and what it said last is still to be read.
        if let Err(cause) = write(&mut writer, &bytes).await {
            return tokio::time::timeout(SILENCE, hearing).await.unwrap_or(Err(cause));
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), String> {
    match timeout(SILENCE, writer.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("its connection broke: {error}")),
        Err(_) => Err(silence()),
    }
}

fn silence() -> String {
    format!("nothing heard from it for {} s", SILENCE.as_secs())
}

/// Passes on what a rank says until it has ended.
async fn hear(mut reader: OwnedReadHalf, rank: Rank, send: &mpsc::Sender<(Rank, Heard)>) -> Result<(), String> {
    loop {
        let (message, bytes) = read(&mut reader).await?;
        let is_last = matches!(message, FromRank::Ended { .. });
        if send.send((rank, Heard::Message(message, bytes))).await.is_err() || is_last {
            return Ok(());
        }
    }
}

async fn read(reader: &mut OwnedReadHalf) -> Result<(FromRank, Vec<u8>), String> {
    let mut head = [0; LENGTHS];
    fill(reader, &mut head).await?;
    let broke = |error: std::io::Error| format!("its connection broke: {error}");
    let (text, bytes) = control::lengths(head).map_err(broke)?;
    let (mut text, mut body) = (vec![0; text], vec![0; bytes]);
    fill(reader, &mut text).await?;
    fill(reader, &mut body).await?;
    Ok((control::decode(&text).map_err(broke)?, body))
}

/// Reads so many bytes; a long message may take its time as long as it comes.
async fn fill(reader: &mut OwnedReadHalf, mut space: &mut [u8]) -> Result<(), String> {
    while !space.is_empty() {
        match timeout(SILENCE, reader.read(space)).await {
            Ok(Ok(0)) => return Err("its connection was closed".to_string()),
            Ok(Ok(bytes)) => space = &mut space[bytes..],
            Ok(Err(error)) => return Err(format!("its connection broke: {error}")),
            Err(_) => return Err(silence()),
        }
    }
    Ok(())
}
