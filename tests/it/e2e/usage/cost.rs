//! Cost is fixed when an event is recorded: every surface tells the sum of the events' costs, also after the prices have
//! changed.

use std::path::Path;

use emitter::{
    app::Environment,
    clock::{Clock, Entropy},
    config::{self, EngineKind},
    proto::v1::{
        self, GetRunRequest, GetUsageRequest, UsageGroup, UsageTotals,
        emitter_operator_client::EmitterOperatorClient, event::Payload, subscribe_response::Item,
    },
};
use serde_json::{Value, json};

use super::{
    super::{server::Server, wire},
    ask,
};
use crate::support::events;

/// A server over the directory `data` by which a million tokens of `acme/large` cost `price`.
async fn server(data: &Path, clock: &Clock, price: u64) -> Server {
    let environment = Environment {
        clock: clock.clone(),
        entropy: Entropy::system(),
        engine: None,
    };
    Server::start_in(environment, |settings| {
        settings.engine.kind = EngineKind::Durable;
        settings.engine.data_dir = data.to_owned();
        settings.prices = vec![config::Price {
            provider: "acme".into(),
            model: "large".into(),
            input: price,
            output: price,
            cached_input: None,
            cache_write: None,
            cache_write_1h: None,
            reasoning: None,
        }];
    })
    .await
}

/// An event of the run `r1` that says what `model` took.
fn spent(id: &str, model: &str, tokens: u64, stated: Option<u64>, payload: Payload) -> v1::Event {
    v1::Event {
        usage: Some(v1::Usage {
            provider: "acme".into(),
            model: model.into(),
            input_tokens: tokens,
            cost_nano_usd: stated,
            ..v1::Usage::default()
        }),
        ..wire::event("u1", "r1", id, payload)
    }
}

/// What each surface says of the run `r1`: the costs in frames and over gRPC, the run's totals and those of its models,
/// the usage of runs and that of days.
struct Told {
    frames: Vec<Value>,
    recorded: Vec<Option<v1::Cost>>,
    run: UsageTotals,
    by_model: u64,
    timeline: u64,
    of_runs: UsageTotals,
    of_days: UsageTotals,
}

/// The costs of the oldest `count` events as a gRPC reader gets them.
async fn recorded(server: &Server, token: &str, count: usize) -> Vec<Option<v1::Cost>> {
    let from = v1::subscribe_request::Start::From(v1::StartFrom::Oldest.into());
    let request = v1::SubscribeRequest {
        start: Some(from),
        ..v1::SubscribeRequest::default()
    };
    let mut client = server.subscriber().await;
    let stream = client.subscribe(wire::with_token(token, request)).await;
    let mut stream = stream.unwrap().into_inner();
    let mut costs = Vec::new();
    while costs.len() < count {
        let response = wire::in_time(stream.message()).await;
        if let Some(Item::Event(event)) = response.unwrap().unwrap().item {
            costs.push(event.cost);
        }
    }
    costs
}

async fn told(server: &Server, last: &str) -> Told {
    let token = server.token("u1", "subscribe");
    let mut socket = wire::Socket::connect(server.http, &token, "from=oldest").await;
    let mut frames: Vec<Value> = Vec::new();
    while frames.last().is_none_or(|frame| frame["event_id"] != last) {
        frames.push(socket.event().await);
    }
    let recorded = recorded(server, &token, frames.len()).await;
    let token = server.token("ops", "operate");
    let url = format!("http://{}", server.grpc);
    let mut operator = EmitterOperatorClient::connect(url).await.unwrap();
    let request = GetRunRequest {
        run_id: "r1".into(),
        ..GetRunRequest::default()
    };
    let shown = operator.get_run(wire::with_token(&token, request)).await;
    let shown = shown.unwrap().into_inner();
    let by = |group: UsageGroup| GetUsageRequest {
        group_by: vec![group.into()],
        ..GetUsageRequest::default()
    };
    let of_runs = ask(server, &token, by(UsageGroup::Run)).await.unwrap();
    let of_days = ask(server, &token, by(UsageGroup::Day)).await.unwrap();
    let models = shown.usage.iter().map(|model| model.totals.unwrap());
    let costs = shown.timeline.iter().filter_map(|item| item.cost);
    Told {
        frames,
        recorded,
        run: shown.run.unwrap().usage.unwrap(),
        by_model: models.map(|totals| totals.cost_nano_usd).sum(),
        timeline: costs.map(|cost| cost.nano_usd).sum(),
        of_runs: of_runs.total.unwrap(),
        of_days: of_days.total.unwrap(),
    }
}

impl Told {
    /// All surfaces must say that the events cost `costs`.
    fn must_be(&self, costs: &[(u64, &str)]) {
        let frames = self.frames.iter().filter_map(|frame| frame.get("cost"));
        let want = costs
            .iter()
            .map(|(cost, basis)| json!({"nano_usd": cost, "basis": basis}));
        assert_eq!(
            frames.cloned().collect::<Vec<_>>(),
            want.collect::<Vec<_>>()
        );
        let recorded = self.recorded.iter().flatten();
        let recorded: Vec<_> = recorded
            .map(|cost| (cost.nano_usd, cost.basis().as_str_name()))
            .collect();
        let names = costs
            .iter()
            .map(|(cost, basis)| (*cost, format!("COST_BASIS_{}", basis.to_uppercase())));
        let names: Vec<_> = names.collect();
        let names: Vec<_> = names.iter().map(|(cost, name)| (*cost, &**name)).collect();
        assert_eq!(recorded, names);
        let sum: u64 = costs.iter().map(|(cost, _)| cost).sum();
        let unpriced = costs.iter().filter(|(_, basis)| *basis == "unpriced");
        let unpriced = unpriced.count() as u64;
        for (surface, totals) in [
            ("GetRun", &self.run),
            ("GetUsage by run", &self.of_runs),
            ("GetUsage by day", &self.of_days),
        ] {
            let told = (totals.events, totals.cost_nano_usd, totals.unpriced_events);
            assert_eq!(told, (costs.len() as u64, sum, unpriced), "{surface}");
        }
        assert_eq!((self.by_model, self.timeline), (sum, sum));
    }
}

#[tokio::test]
async fn all_surfaces_agree_with_what_was_recorded_after_the_prices_changed() {
    let data = tempfile::tempdir().unwrap();
    let clock = Clock::manual(events::START);
    let thinks = || wire::thinking("a");

    let first = server(data.path(), &clock, 1_000_000_001).await;
    let batch = vec![
        wire::started("u1", "r1"),
        spent("1", "large", 1_000_000, None, thinks()),
        // A part of a billionth: each event is rounded by itself, half up.
        spent("2", "large", 500, None, thinks()),
        spent("3", "large", 1_000, Some(7), thinks()),
        spent("4", "unknown", 1_000, None, thinks()),
        // Nothing costs nothing, whatever the price.
        spent("5", "unknown", 0, None, thinks()),
    ];
    first.emit_all("agents", batch.clone()).await;
    let mut costs = vec![
        (1_000_000_001, "priced"),
        (500_000, "priced"),
        (7, "stated"),
        (0, "unpriced"),
        (0, "priced"),
    ];
    told(&first, "5").await.must_be(&costs);
    first.stop().await;

    let second = server(data.path(), &clock, 4_000_000_000).await;
    told(&second, "5").await.must_be(&costs);
    // A duplicate adds no cost; a new event has the new price.
    second.emit_all("agents", batch).await;
    let completed = Payload::AgentCompleted(v1::AgentCompleted::default());
    let end = vec![spent("6", "large", 1_000_000, None, completed)];
    second.emit_all("agents", end).await;
    costs.push((4_000_000_000, "priced"));
    let ended = told(&second, "6").await;
    ended.must_be(&costs);
    let summary = &ended.frames.last().unwrap()["summary"]["usage"];
    assert_eq!(summary["cost_nano_usd"], 5_000_500_008_u64, "{summary}");
    second.stop().await;

    let third = server(data.path(), &clock, 0).await;
    told(&third, "6").await.must_be(&costs);
    third.stop().await;
}
