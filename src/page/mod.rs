//! The page that `emitter dev` opens: what one user's agents do, live.
//!
//! The page is a reader like any other. Beside its files it is given two things that only a service for development
//! has: a new token for an old one, and a run to look at, played through the gRPC listener.

mod assets;
mod host;
mod renewal;
mod sample;
mod script;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    access::{self, Authenticator},
    clock::{Clock, Entropy},
    event::UserId,
    reason::{Reason, Refusal},
};
use sample::Player;

/// What the page's routes work with.
struct Page {
    access: access::Config,
    authenticator: Authenticator,
    clock: Clock,
    player: Player,
}

/// Adds the page to `routes` and closes them all to hosts by other names (`host`): `/` and `/page/…`, the page;
/// `POST /dev/token?user=…`, a new token for the reader of an old one, of another user if one is named; `POST /dev/sample`, a sample run for the reader, emitted
/// to the gRPC port at `grpc`, such as `127.0.0.1:50051`. Tokens are by `access`.
pub fn with_page(routes: Router, access: access::Config, grpc: &str) -> Router {
    let clock = Clock::system();
    let page = Arc::new(Page {
        authenticator: Authenticator::new(&access, clock.clone()),
        player: Player::new(grpc, access.clone(), clock.clone(), Entropy::system()),
        access,
        clock,
    });
    Router::new()
        .route("/", get(assets::index))
        .route("/page/{file}", get(assets::file))
        .route("/dev/token", post(token))
        .route("/dev/sample", post(sample))
        .with_state(page)
        .merge(routes)
        .layer(middleware::from_fn(host::check))
}

/// The query of `POST /dev/token`.
#[derive(Deserialize)]
struct TokenQuery {
    /// The user to read from now on; absent: that of the old token.
    user: Option<String>,
}

async fn token(
    State(page): State<Arc<Page>>,
    Query(query): Query<TokenQuery>,
    headers: HeaderMap,
) -> Response {
    let renewed = wanted(query.user.as_deref()).and_then(|user| {
        renewal::renew(
            &page.authenticator,
            &page.access,
            &page.clock,
            &headers,
            user,
        )
    });
    match renewed {
        Ok((token, expires_at)) => {
            let expires_at = expires_at.to_string();
            answer(
                StatusCode::OK,
                &json!({ "token": token, "expires_at": expires_at }),
            )
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The user that a query names.
fn wanted(user: Option<&str>) -> Result<Option<UserId>, Refusal> {
    user.map(|user| {
        UserId::new(user).map_err(|error| {
            let problem = format!("`user`: {user:?} is not a user's id: {error}");
            Refusal::new(Reason::InvalidRequest, problem)
        })
    })
    .transpose()
}

async fn sample(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    let reader = page
        .authenticator
        .admit(&headers)
        .and_then(|principal| principal.may_read(None));
    match reader.and_then(|stream| page.player.play(&stream)) {
        Ok(run_id) => answer(StatusCode::ACCEPTED, &json!({ "run_id": run_id })),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.reason {
        Reason::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        reason => {
            StatusCode::from_u16(reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    let (reason, message) = (refusal.reason.name(), &refusal.message);
    answer(status, &json!({ "reason": reason, "message": message }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests;
