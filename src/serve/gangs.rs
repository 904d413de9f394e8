//! `/api/v1/gangs`: executors that take ranks, and which of them work for which run.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, post};
use axum::{Json, Router};
use engine::gang::{LeaseAnswer, LeaseRequest, Member};

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/gangs/members", post(join).get(members))
        .route("/api/v1/gangs/leases", post(lease))
        .route("/api/v1/gangs/leases/{run}", delete(release))
}

/// An executor says, every second, that it takes ranks.
#[utoipa::path(post, path = "/api/v1/gangs/members", request_body = Member, responses((status = 204)))]
pub(super) async fn join(State(api): State<Api>, Json(member): Json<Member>) -> StatusCode {
    api.scheduler.leases().heartbeat(member);
    StatusCode::NO_CONTENT
}

/// How many executors take ranks.
#[utoipa::path(get, path = "/api/v1/gangs/members", responses((status = 200, body = usize)))]
pub(super) async fn members(State(api): State<Api>) -> Json<usize> {
    Json(api.scheduler.leases().available())
}

/// A run asks for workers, again every second as long as it lives.
#[utoipa::path(post, path = "/api/v1/gangs/leases", request_body = LeaseRequest,
    responses((status = 200, body = LeaseAnswer)))]
pub(super) async fn lease(State(api): State<Api>, Json(request): Json<LeaseRequest>) -> Json<LeaseAnswer> {
    Json(api.scheduler.leases().ask(request))
}

/// A run has ended.
#[utoipa::path(delete, path = "/api/v1/gangs/leases/{run}", params(("run", description = "Its id")),
    responses((status = 204)))]
pub(super) async fn release(State(api): State<Api>, Path(run): Path<String>) -> StatusCode {
    api.scheduler.leases().release(&run);
    StatusCode::NO_CONTENT
}
