//! `/api/v1/jobs`: scripts that run on the scheduler.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::Error;
use engine::cluster::api::{JobInfo, JobRequest, LogLine, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, answer};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/jobs", post(submit).get(list))
        .route("/api/v1/jobs/{id}", get(status).delete(cancel))
        .route("/api/v1/jobs/{id}/log", get(log))
        .route("/api/v1/jobs/{id}/resume", post(resume))
}

/// Takes a script in; it runs when its turn comes.
#[utoipa::path(post, path = "/api/v1/jobs", request_body = JobRequest,
    responses((status = 201, body = JobInfo), (status = 400, body = Problem)))]
pub(super) async fn submit(State(api): State<Api>, Json(request): Json<JobRequest>) -> Response {
    // A long script is read beside the threads that answer others.
    let read = tokio::task::spawn_blocking(move || api.jobs.submit(request)).await;
    match read.unwrap_or_else(|error| Err(Error::Fault(error.to_string()))) {
        Ok(info) => (StatusCode::CREATED, Json(info)).into_response(),
        Err(error) => answer::<JobInfo>(Err(error)),
    }
}

/// All jobs, the newest first.
#[utoipa::path(get, path = "/api/v1/jobs", responses((status = 200, body = Vec<JobInfo>)))]
pub(super) async fn list(State(api): State<Api>) -> Response {
    Json(api.jobs.list()).into_response()
}

/// How a job stands.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", params(("id", description = "Its id, or the beginning of it")),
    responses((status = 200, body = JobInfo), (status = 400, body = Problem)))]
pub(super) async fn status(State(api): State<Api>, Path(id): Path<String>) -> Response {
    answer(api.jobs.status(&id))
}

/// Which part of a log is wanted.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct LogQuery {
    /// Number of the last line that is known already.
    #[serde(default)]
    after: u64,
    /// Whether to wait for a line when there is none yet and the job has not ended.
    #[serde(default)]
    wait: bool,
}

/// The lines of a job's log.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/log", params(("id", description = "Its id"), LogQuery),
    responses((status = 200, body = Vec<LogLine>), (status = 400, body = Problem)))]
pub(super) async fn log(State(api): State<Api>, Path(id): Path<String>, Query(query): Query<LogQuery>) -> Response {
    answer(api.jobs.log(&id, query.after, query.wait).await)
}

/// Stops a job; what it has committed stays.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", params(("id", description = "Its id")),
    responses((status = 200, body = JobInfo), (status = 400, body = Problem)))]
pub(super) async fn cancel(State(api): State<Api>, Path(id): Path<String>) -> Response {
    answer(api.jobs.cancel(&id))
}

/// Lets a job that has failed, was cancelled or lost go on after its last finished statement.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/resume", params(("id", description = "Its id")),
    responses((status = 200, body = JobInfo), (status = 400, body = Problem)))]
pub(super) async fn resume(State(api): State<Api>, Path(id): Path<String>) -> Response {
    answer(api.jobs.resume(&id))
}
