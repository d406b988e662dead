//! Health and metrics, on a port of their own.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    engine::{Condition, Description, Engine},
    shutdown::{Drain, Phase},
};

#[derive(Clone)]
struct Operator {
    metrics: PrometheusHandle,
    drain: Drain,
    engine: Arc<dyn Engine>,
}

/// The routes for operators:
///
/// - `/healthz`: 200 while the process lives, 503 once nothing but a restart helps.
/// - `/readyz`: 200 while it takes new work, also while its engine refuses emits for a time and readers are served; 503
///   while it drains, and once nothing but a restart helps. JSON that says which.
/// - `/metrics`: for Prometheus.
pub fn routes(metrics: PrometheusHandle, drain: Drain, engine: Arc<dyn Engine>) -> Router {
    let operator = Operator {
        metrics,
        drain,
        engine,
    };
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(operator)
}

async fn alive(State(operator): State<Operator>) -> (StatusCode, String) {
    match operator.engine.condition() {
        Condition::Well | Condition::Refusing(_) | Condition::Unfit(_) => {
            (StatusCode::OK, "ok\n".into())
        }
        Condition::Failed(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn ready(State(operator): State<Operator>) -> Response {
    let condition = operator.engine.condition();
    let (status, word) = match (operator.drain.phase(), condition) {
        (Phase::Draining | Phase::Stopped, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (Phase::Serving, Condition::Well) => (StatusCode::OK, "ready"),
        // Readers are served, and no other node could do more for them.
        (Phase::Serving, Condition::Refusing(_)) => (StatusCode::OK, "refusing"),
        (Phase::Serving, Condition::Unfit(_)) => (StatusCode::SERVICE_UNAVAILABLE, "unfit"),
        (Phase::Serving, Condition::Failed(_)) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    let Description { kind, level, loses } = operator.engine.describe();
    let mut body = serde_json::json!({
        "status": word,
        "version": env!("CARGO_PKG_VERSION"),
        "engine": { "kind": kind, "level": level, "loses": loses },
    });
    if let Condition::Refusing(why) | Condition::Unfit(why) | Condition::Failed(why) = condition {
        body["engine"]["refuses"] = why.into();
    }
    let problems = operator.engine.problems();
    if !problems.is_empty() {
        body["engine"]["problems"] = problems.into();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, format!("{body}\n")).into_response()
}

async fn metrics_text(State(operator): State<Operator>) -> Response {
    let text = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (text, operator.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        clock::{Clock, Entropy},
        engine::memory::{self, MemoryEngine},
        shutdown::Shutdown,
        telemetry::Metrics,
    };

    async fn get(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_ends_where_the_drain_begins() {
        let (metrics, handle) = Metrics::new();
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let metrics = Arc::new(metrics);
        let (bounds, clock) = (memory::Config::default(), Clock::system());
        let engine = MemoryEngine::new(bounds, clock, &Entropy::seeded(1), metrics.clone());
        let router = routes(handle, shutdown.drain(), engine);
        metrics.emitted.increment(3);

        assert_eq!(get(&router, "/healthz").await, (200, "ok\n".into()));
        let (status, body) = get(&router, "/readyz").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["status"]), (200, &"ready".into()));
        assert_eq!(body["engine"]["kind"], "memory");
        let (status, body) = get(&router, "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("emitter_events_emitted_total 3"), "{body}");
        assert_eq!(get(&router, "/nowhere").await.0, 404);

        shutdown.advance(Phase::Draining);
        let (status, body) = get(&router, "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("draining"), "{body}");
        assert_eq!(get(&router, "/healthz").await.0, 200);
    }
}
