//! What scheduler and clients say to each other about jobs and executors, as JSON over HTTP. The server is in the program;
//! the words are here, so that both sides have the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An executor as the scheduler knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecutorInfo {
    /// Its name.
    pub id: String,
    /// The machine under which others reach it.
    pub host: String,
    /// Where it gives out rows.
    pub port: u16,
    /// Tasks that it runs at a time.
    pub cores: u32,
    /// Seconds since its last heartbeat.
    pub last_seen_seconds: u64,
}

/// What may have shaken a plan while it ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disturbance {
    /// Executors that were lost or left since the scheduler began.
    pub departures: u64,
    /// Whether a stage of the plan in question was begun more than once.
    pub repeated: bool,
}

/// A script to run on the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRequest {
    /// The script's text.
    pub script: String,
    /// What it is called in messages, such as its file name.
    #[serde(default)]
    pub name: String,
    /// Values for declared parameters.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Options, as `--set` takes them.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Whose job it is; jobs of one user run in the order of submission.
    #[serde(default)]
    pub user: String,
    /// What relative places are relative to, as an absolute path; left out, the scheduler's working directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directory: String,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Runs.
    Running,
    /// All statements ran.
    Succeeded,
    /// A statement failed.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// The scheduler ended while it ran; it can be resumed.
    Lost,
    /// Its history cannot be read, so nobody knows what it has done.
    Damaged,
}

impl JobState {
    /// Whether it will not change any more by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }

    /// In one lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Lost => "lost",
            JobState::Damaged => "damaged",
        }
    }
}

/// A job as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobInfo {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// How it stands.
    pub state: JobState,
    /// Milliseconds since 1970 when it was submitted.
    pub submitted_ms: u64,
    /// When it began to run.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Statements that have ended well.
    pub statements_done: usize,
    /// Statements in all, once it has begun.
    pub statements: Option<usize>,
    /// What it is doing, such as `COPY TO out/`.
    pub doing: Option<String>,
    /// Why it failed, with place and hint.
    pub error: Option<String>,
    /// What `run` would have exited with.
    pub exit_code: Option<u8>,
}

/// One line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Counts from 1 inside the job.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// `result` is what `run` prints to stdout, all else goes to stderr.
    pub stream: LogStream,
    /// One or more lines, without the last line's end.
    pub text: String,
}

/// Where `run` would have printed a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Rows.
    Result,
    /// Progress and notes.
    Progress,
    /// What the user should act on.
    Warning,
    /// Why it failed.
    Error,
}

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// One sentence.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
