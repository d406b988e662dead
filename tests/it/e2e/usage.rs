//! Usage and cost: to the token, whatever was sent, sent again or refused.

mod agents;
mod cost;
mod ledger;

use std::{collections::BTreeMap, time::Duration};

use emitter::{
    config,
    proto::v1::{
        self, GetUsageRequest, GetUsageResponse, UsageGroup, emit_result::Outcome,
        emitter_operator_client::EmitterOperatorClient, event::Payload,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tonic::{Code, Status};

use self::{
    agents::{Agents, Fate, Sent},
    ledger::{Entry, Ledger, Price},
};
use super::{isolation::reason, server::Server, wire};
use crate::support::seed::seed;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TENANTS: [&str; 2] = ["acme", "beta"];
const USERS: usize = 10;
const DAYS: usize = 5;

/// How many runs there are in each tenant and day: 10,000 in all.
const RUNS: usize = 10_000 / TENANTS.len() / DAYS;

/// The model, and what a million of its tokens cost.
const PRICES: [((&str, &str), Price); 3] = [
    (
        ("acme", "large"),
        [
            1_250_000_000,
            125_000_000,
            10_000_000_000,
            12_000_000_001,
            1_562_500_000,
            2_500_000_000,
        ],
    ),
    (("acme", "small"), [1, 1, 499_999, 500_000, 2, 3]),
    (("", "large"), [0, 0, 1, 7, 11, 13]),
];

const GROUPS: [UsageGroup; 7] = [
    UsageGroup::Tenant,
    UsageGroup::User,
    UsageGroup::Thread,
    UsageGroup::Run,
    UsageGroup::Provider,
    UsageGroup::Model,
    UsageGroup::Day,
];

async fn server() -> Server {
    Server::start_with(|settings| {
        // Runs are known for as long as their events.
        settings.retention.age = 10 * DAY;
        let price = |((provider, model), price): ((&str, &str), Price)| config::Price {
            provider: provider.into(),
            model: model.into(),
            input: price[0],
            output: price[2],
            cached_input: Some(price[1]),
            cache_write: Some(price[4]),
            cache_write_1h: Some(price[5]),
            reasoning: Some(price[3]),
        };
        settings.prices = PRICES.map(price).into();
    })
    .await
}

async fn ask(
    server: &Server,
    token: &str,
    request: GetUsageRequest,
) -> Result<GetUsageResponse, Status> {
    let url = format!("http://{}", server.grpc);
    let mut client = EmitterOperatorClient::connect(url).await.unwrap();
    let answer = client.get_usage(wire::with_token(token, request)).await;
    answer.map(tonic::Response::into_inner)
}

/// Sends a day's work of a tenant, and enters what was stored into `ledger`.
async fn send(server: &Server, tenant: &str, work: Vec<Sent>, ledger: &mut Ledger) {
    let token = server.token_in(tenant, "agents", "emit");
    let day = server.clock.now().to_string()[..10].to_owned();
    for batch in work.chunks(1_000) {
        let events = batch.iter().map(|sent| sent.event.clone()).collect();
        let results = server.try_emit_with(&token, events).await;
        for (sent, result) in batch.iter().zip(&results) {
            let fate = match &result.outcome {
                Some(Outcome::Receipt(receipt)) if receipt.duplicate => Fate::Duplicate,
                Some(Outcome::Receipt(_)) => Fate::Stored,
                _ => Fate::Refused,
            };
            assert_eq!(fate, sent.fate, "{:?}: {result:?}", sent.event);
        }
        let stored = batch.iter().filter(|sent| sent.fate == Fate::Stored);
        ledger.entries.extend(stored.filter_map(|sent| {
            Some(Entry {
                tenant: tenant.to_owned(),
                user: sent.event.user_id.clone(),
                thread: sent.thread.clone(),
                run: sent.event.run_id.clone(),
                day: day.clone(),
                usage: sent.event.usage.clone()?,
            })
        }));
    }
}

/// Every choice of `groups`, each in some order.
fn choices(groups: &[UsageGroup], rng: &mut StdRng) -> Vec<Vec<i32>> {
    let choice = |bits: usize| {
        let chosen = (0..groups.len()).filter(|n| bits & (1 << n) != 0);
        let mut chosen: Vec<i32> = chosen.map(|n| groups[n].into()).collect();
        rand::seq::SliceRandom::shuffle(&mut *chosen, rng);
        chosen
    };
    (0..1 << groups.len()).map(choice).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_totals_of_10_000_runs_are_exact_by_every_grouping() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let server = server().await;
    let mut ledger = Ledger::default();
    for ((provider, model), price) in PRICES {
        let model = (provider.to_owned(), model.to_owned());
        ledger.prices.insert(model, price);
    }
    let mut agents = TENANTS.map(|_| Agents::new(rng.random(), USERS));
    for _ in 0..DAYS {
        for (tenant, agents) in TENANTS.iter().zip(&mut agents) {
            let work = agents.work(RUNS);
            send(&server, tenant, work, &mut ledger).await;
        }
        server.clock.advance(DAY);
    }
    println!("{} events with usage", ledger.entries.len());
    let token = server.token_in("*", "ops", "operate");
    for request in requests(&ledger, &mut rng) {
        let answer = ask(&server, &token, request.clone()).await.unwrap();
        let (rows, total) = ledger.answer(&request);
        assert_eq!(answer.total, Some(total), "EMITTER_SEED={seed} {request:?}");
        assert_eq!(answer.rows_left_out, 0, "EMITTER_SEED={seed} {request:?}");
        let wrong = answer
            .rows
            .iter()
            .zip(&rows)
            .find(|(told, want)| told != want);
        assert_eq!(wrong, None, "EMITTER_SEED={seed} {request:?}");
        assert_eq!(
            answer.rows.len(),
            rows.len(),
            "EMITTER_SEED={seed} {request:?}"
        );
    }
    server.stop().await;
}

/// Every grouping; those by run of one user, because of their many rows. And questions at random.
fn requests(ledger: &Ledger, rng: &mut StdRng) -> Vec<GetUsageRequest> {
    let but = |group| GROUPS.into_iter().filter(move |known| *known != group);
    let without_run: Vec<_> = but(UsageGroup::Run).collect();
    let without_day: Vec<_> = but(UsageGroup::Day).collect();
    let of_all = |group_by| GetUsageRequest {
        group_by,
        ..GetUsageRequest::default()
    };
    let mut requests: Vec<_> = choices(&without_run, rng).into_iter().map(of_all).collect();
    requests.push(of_all(vec![UsageGroup::Run.into()]));
    let run = i32::from(UsageGroup::Run);
    let by_run = choices(&without_day, rng).into_iter();
    for group_by in by_run.filter(|group_by| group_by.contains(&run)) {
        let entry = ledger.entries.choose(rng).unwrap();
        requests.push(GetUsageRequest {
            tenant_id: entry.tenant.clone(),
            user_id: entry.user.clone(),
            ..of_all(group_by)
        });
    }
    for group_by in choices(&without_run, rng) {
        let [entry, other] = [(); 2].map(|()| ledger.entries.choose(rng).unwrap());
        let mut some = |text: &str| match rng.random_bool(0.3) {
            true => text.to_owned(),
            false => String::new(),
        };
        let days = [&entry.day, &other.day];
        requests.push(GetUsageRequest {
            tenant_id: some(&entry.tenant),
            user_id: some(&entry.user),
            thread_id: some(&entry.thread),
            run_id: String::new(),
            provider: some(&entry.usage.provider),
            model: some(&entry.usage.model),
            first_day: some(days.iter().min().unwrap()),
            last_day: some(days.iter().max().unwrap()),
            group_by,
        });
    }
    for _ in 0..10 {
        let entry = ledger.entries.choose(rng).unwrap();
        requests.push(GetUsageRequest {
            run_id: entry.run.clone(),
            ..of_all(vec![UsageGroup::Model.into(), UsageGroup::Tenant.into()])
        });
    }
    requests
}

/// An event of `run` that says that the model `large` of `provider` took a million input tokens.
fn spent(run: &str, id: &str, provider: &str, payload: Payload) -> v1::Event {
    v1::Event {
        usage: Some(v1::Usage {
            provider: provider.into(),
            model: "large".into(),
            input_tokens: 1_000_000,
            ..v1::Usage::default()
        }),
        ..wire::event("u1", run, id, payload)
    }
}

#[tokio::test]
async fn a_run_ends_with_what_it_came_to() {
    let server = server().await;
    let completed = Payload::AgentCompleted(v1::AgentCompleted::default());
    let events = vec![
        wire::started("u1", "r1"),
        spent("r1", "1", "acme", wire::thinking("a")),
        spent("r1", "2", "unknown", wire::thinking("b")),
        spent("r1", "3", "acme", completed),
    ];
    server.emit_all("agents", events.clone()).await;
    server.emit_all("agents", events).await;
    let token = server.token("u1", "subscribe");
    let mut socket = wire::Socket::connect(server.http, &token, "from=oldest").await;
    let ended = socket.frame_of("agent_completed").await;
    let want = serde_json::json!({
        "events": 3,
        "input_tokens": 3_000_000,
        "output_tokens": 0,
        "cached_input_tokens": 0,
        "cache_write_input_tokens": 0,
        "cache_write_1h_input_tokens": 0,
        "reasoning_tokens": 0,
        "cost_nano_usd": 2_500_000_000_u64,
        "unpriced_events": 1,
    });
    assert_eq!(ended["summary"]["usage"], want, "{ended}");
    server.stop().await;
}

#[tokio::test]
async fn usage_is_told_to_operators_of_the_tenant_only() {
    let server = server().await;
    for tenant in TENANTS {
        let token = server.token_in(tenant, "agents", "emit");
        let events = vec![
            wire::started("u1", "r1"),
            spent("r1", "1", "acme", wire::thinking("a")),
        ];
        server.emit_with(&token, events).await;
    }
    let of = |tenant: &str| GetUsageRequest {
        tenant_id: tenant.into(),
        group_by: vec![UsageGroup::Tenant.into()],
        ..GetUsageRequest::default()
    };
    let acme = server.token_in("acme", "ops", "operate");
    for (token, asked, want) in [
        (&acme, "", &["acme"][..]),
        (&acme, "acme", &["acme"]),
        (&server.token_in("*", "ops", "operate"), "", &TENANTS),
        (&server.token_in("*", "ops", "operate"), "beta", &["beta"]),
    ] {
        let answer = ask(&server, token, of(asked)).await.unwrap();
        let tenants = answer.rows.iter().map(|row| row.tenant_id.as_str());
        assert_eq!(tenants.collect::<Vec<_>>(), want, "{asked:?}");
    }
    let run = GetUsageRequest {
        run_id: "r1".into(),
        ..GetUsageRequest::default()
    };
    let answer = ask(&server, &acme, run).await.unwrap();
    assert_eq!(answer.total.unwrap().events, 1);

    let emit = server.token_in("acme", "ops", "emit");
    let day = GetUsageRequest {
        run_id: "r1".into(),
        first_day: "2026-11-22".into(),
        ..GetUsageRequest::default()
    };
    for (token, request, code, want) in [
        (
            &acme,
            of("beta"),
            Code::PermissionDenied,
            "TENANT_FORBIDDEN",
        ),
        (&emit, of(""), Code::PermissionDenied, "SCOPE_MISSING"),
        (&acme, day, Code::InvalidArgument, "INVALID_REQUEST"),
    ] {
        let status = ask(&server, token, request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, want));
    }
    server.stop().await;
}

#[tokio::test]
async fn usage_outlives_runs_and_is_bounded_in_series() {
    let server = Server::start_with(|settings| settings.usage.series = 2).await;
    for user in ["a", "b", "c", "d"] {
        let mut event = spent(&format!("run of {user}"), "1", "acme", wire::thinking("a"));
        user.clone_into(&mut event.user_id);
        let start = wire::started(user, &event.run_id);
        server.emit_all("agents", vec![start, event]).await;
    }
    let by = |group: UsageGroup| GetUsageRequest {
        group_by: vec![group.into()],
        ..GetUsageRequest::default()
    };
    let token = server.token("ops", "operate");
    let answer = ask(&server, &token, by(UsageGroup::User)).await.unwrap();
    let told = answer.rows.iter().map(|row| {
        let totals = row.totals.as_ref().unwrap();
        (row.user_id.as_str(), totals.events)
    });
    let told: BTreeMap<_, _> = told.collect();
    assert_eq!(told, BTreeMap::from([("", 2), ("a", 1), ("b", 1)]));
    assert_eq!(answer.total.unwrap().input_tokens, 4_000_000);
    assert!(server.metric("emitter_usage_folded_total").await >= 2.0);

    server.clock.advance(30 * DAY);
    let token = server.token("ops", "operate");
    let answer = ask(&server, &token, by(UsageGroup::Day)).await.unwrap();
    assert_eq!(answer.total.unwrap().events, 4);
    server.clock.advance(2 * DAY);
    let token = server.token("ops", "operate");
    let answer = ask(&server, &token, by(UsageGroup::Day)).await.unwrap();
    assert_eq!(
        (answer.rows.len(), answer.total),
        (0, Some(Default::default()))
    );
    server.stop().await;
}
