//! What a scheduler serves on its one port: the services that drivers and executors call, the HTTP API beside them, and
//! whether it is well.

mod face;
mod gangs;
mod jobs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use engine::cluster::api::{Disturbance, ExecutorInfo, Problem};
use engine::cluster::{ClusterClient, Environment, Jobs, Scheduler, Tell, jobs_directory};
use engine::{Error, Options, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

/// What a scheduler is made of, before it serves.
pub(crate) struct Served {
    pub(crate) scheduler: Scheduler,
    pub(crate) environment: Environment,
    /// Its own address, for the drivers of its jobs.
    pub(crate) client: ClusterClient,
    /// For its jobs, unless they say otherwise.
    pub(crate) options: Options,
    /// Where the history of its jobs is kept.
    pub(crate) state_dir: PathBuf,
    /// Hears what whoever runs the scheduler should know.
    pub(crate) tell: Tell,
}

/// What the handlers share.
#[derive(Clone)]
struct Api {
    scheduler: Scheduler,
    jobs: Jobs,
}

/// The API as a document, at `/api/v1/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(title = "Gristmill", description = "Jobs and executors of a Gristmill cluster."),
    paths(
        executors,
        disturbance,
        jobs::submit,
        jobs::list,
        jobs::status,
        jobs::log,
        jobs::cancel,
        jobs::resume,
        gangs::join,
        gangs::members,
        gangs::lease,
        gangs::release
    )
)]
struct Document;

/// Serves until `stop` is cancelled.
///
/// # Errors
/// A history of jobs that cannot be read; the network's.
pub(crate) async fn serve(listener: TcpListener, served: Served, stop: CancellationToken) -> Result<()> {
    let Served { scheduler, environment, client, options, state_dir, tell } = served;
    let face = Arc::new(face::PlainFace);
    let jobs = Jobs::open(jobs_directory(&state_dir), client, environment, options, face)?;
    for damage in jobs.damages() {
        tell(&format!("warning: {damage}: the job is listed as damaged"));
    }
    let services = scheduler.routes().into_axum_router();
    let router = api(Api { scheduler, jobs: jobs.clone() }).merge(services);
    // A waiting peer must not wait for the acknowledgement of what was sent before: twice 40 ms in every plan.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps small messages back");
        }
    });
    let serving = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>());
    // Executors keep their connections open for ever, so the end does not wait for them.
    tokio::select! {
        served = serving => served.map_err(|error| Error::Cluster(format!("the scheduler: {error}"))),
        () = jobs.work(stop.clone()) => Ok(()),
    }
}

fn api(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/api/v1/openapi.json", get(|| async { Json(Document::openapi()) }))
        .route("/api/v1/executors", get(executors))
        .route("/api/v1/disturbance", get(disturbance))
        .merge(jobs::routes())
        .merge(gangs::routes())
        .with_state(api)
}

/// Ready is a scheduler that has somebody to work for it.
async fn ready(State(api): State<Api>) -> Response {
    match api.scheduler.executors().await {
        Ok(executors) if !executors.is_empty() => "ready".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "no executors").into_response(),
    }
}

/// The executors that live.
#[utoipa::path(get, path = "/api/v1/executors", responses((status = 200, body = Vec<ExecutorInfo>)))]
async fn executors(State(api): State<Api>) -> Response {
    answer(api.scheduler.executors().await)
}

/// Which plan is meant.
#[derive(serde::Deserialize, utoipa::IntoParams)]
struct Shaken {
    /// Its id.
    plan: Option<String>,
}

/// What may have shaken a plan while it ran.
#[utoipa::path(get, path = "/api/v1/disturbance", params(Shaken), responses((status = 200, body = Disturbance)))]
async fn disturbance(State(api): State<Api>, Query(Shaken { plan }): Query<Shaken>) -> Response {
    Json(api.scheduler.disturbance(plan.as_deref()).await).into_response()
}

/// A result as JSON, an error as [`Problem`].
fn answer<T: serde::Serialize>(result: Result<T>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let status = match error.innermost() {
                Error::Usage(_) | Error::Invalid { .. } => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let (error, hint) = match error.innermost() {
                Error::Invalid { message, hint, .. } => (message.clone(), hint.clone()),
                _ => (error.to_string(), None),
            };
            (status, Json(Problem { error, hint })).into_response()
        }
    }
}
