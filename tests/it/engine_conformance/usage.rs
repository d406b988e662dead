//! Usage: added up once for each appended draft, and kept for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use emitter::{
    clock::{Clock, Timestamp},
    engine::{Commit, Engine},
    event::{
        Cost, CostBasis, Draft, Event, StreamKey, Tenant, ThreadId, Tokens, Usage, UsageTotals,
        UserId,
    },
    usage::{Day, Model, UsageQuery},
};

use super::{USAGE_AGE, USAGE_SERIES, pass_a_day};
use crate::support::events::{ALL, START, append, draft, maintain_all, note, stream};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A note that says that `model` took so many tokens.
fn spent(user: &StreamKey, id: &str, thread: &str, model: &str, tokens: u64) -> Event {
    Event {
        thread_id: ThreadId::new(thread).ok(),
        usage: Some(Box::new(Usage {
            provider: "p".into(),
            model: model.into(),
            tokens: Tokens {
                input: tokens,
                output: 2 * tokens,
                cached_input: tokens / 2,
                cache_write: 3,
                cache_write_1h: 2,
                reasoning: 1,
            },
            cost_nano_usd: tokens.is_multiple_of(2).then_some(tokens),
        })),
        ..Event::clone(&note(user, id))
    }
}

fn at(now: Timestamp, events: impl IntoIterator<Item = Event>) -> Commit {
    let drafts: Vec<Draft> = events
        .into_iter()
        .map(|event| draft(event, 0, now))
        .collect();
    Commit { drafts }
}

/// The sums that `query` asks for, as `tenant day user thread model`.
async fn sums(engine: &dyn Engine, query: &UsageQuery) -> BTreeMap<String, UsageTotals> {
    let mut sums = BTreeMap::<String, UsageTotals>::new();
    for (series, sum) in engine.usage(query).await.expect("usage") {
        let user = series.user.as_ref().map_or("-", UserId::as_str);
        let thread = series.thread_id.as_ref().map_or("-", ThreadId::as_str);
        let (tenant, day, model) = (series.tenant.as_str(), series.day, series.model.model);
        let name = format!("{tenant} {day} {user} {thread} {model}");
        sums.entry(name).or_default().merge(&sum);
    }
    sums
}

/// How many input tokens `query` asks for, by series.
async fn inputs(engine: &dyn Engine, query: &UsageQuery) -> Vec<(String, u64)> {
    let sums = sums(engine, query).await.into_iter();
    sums.map(|(name, sum)| (name, sum.tokens.input)).collect()
}

pub(crate) async fn every_appended_draft_counts_once_in_its_series(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let (a, b) = (stream("a"), stream("b"));
    // The last moment of a day, and the first of the next.
    let midnight = Day::of(START).end();
    let before = Timestamp::from_millis(midnight.as_millis() - 1);
    let events = [
        spent(&a, "1", "t", "m", 1),
        spent(&a, "2", "t", "m", 2),
        spent(&a, "3", "s", "m", 4),
        spent(&a, "4", "t", "n", 8),
        spent(&a, "5", "", "m", 16),
        Event::clone(&note(&a, "6")),
    ];
    append(&*engine, &a, at(before, events)).await;
    append(&*engine, &a, at(midnight, [spent(&a, "7", "t", "m", 32)])).await;
    append(&*engine, &b, at(midnight, [spent(&b, "1", "t", "m", 64)])).await;
    let (first, next) = (Day::of(before), Day::of(midnight));
    let want = [
        (format!("default {first} a - m"), 16),
        (format!("default {first} a s m"), 4),
        (format!("default {first} a t m"), 3),
        (format!("default {first} a t n"), 8),
        (format!("default {next} a t m"), 32),
        (format!("default {next} b t m"), 64),
    ];
    let all = UsageQuery::default();
    assert_eq!(inputs(&*engine, &all).await, want);
    let one = sums(&*engine, &all).await[&format!("default {first} a t m")];
    let sum = UsageTotals {
        events: 2,
        tokens: Tokens {
            input: 3,
            output: 6,
            cached_input: 1,
            cache_write: 6,
            cache_write_1h: 4,
            reasoning: 2,
        },
        cost_nano_usd: 2,
        unpriced_events: 1,
    };
    assert_eq!(one, sum);
}

pub(crate) async fn a_cost_is_added_up_as_it_was_recorded(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let costs = [
        (3, CostBasis::Priced),
        (4, CostBasis::Stated),
        (0, CostBasis::Unpriced),
    ];
    let drafts = costs.map(|(nano_usd, basis)| Draft {
        cost: Some(Cost { nano_usd, basis }),
        ..draft(spent(&user, &format!("{nano_usd}"), "t", "m", 1), 0, START)
    });
    let drafts = drafts.into();
    let stored = append(&*engine, &user, Commit { drafts }).await;
    let sums = sums(&*engine, &UsageQuery::default()).await;
    let told: Vec<_> = sums
        .values()
        .map(|sum| (sum.events, sum.cost_nano_usd, sum.unpriced_events))
        .collect();
    assert_eq!(told, [(3, 7, 1)]);
    // Readers get the costs of which that is the sum.
    let head = stored.records[0].prev;
    let page = engine.read(&user, head, ALL).await.unwrap();
    let read = page.records.iter().map(|record| record.draft.cost);
    let want = costs.map(|(nano_usd, basis)| Some(Cost { nano_usd, basis }));
    assert_eq!(read.collect::<Vec<_>>(), want);
}

pub(crate) async fn a_refused_commit_consumes_nothing(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    let first = append(&*engine, &user, at(START, [spent(&user, "1", "t", "m", 1)])).await;
    append(&*engine, &user, at(START, [spent(&user, "2", "t", "m", 2)])).await;
    let late = at(START, [spent(&user, "3", "t", "m", 4)]);
    let answer = engine
        .append(&user, &super::at(first.records[0].position), late)
        .await;
    assert!(answer.is_err(), "{answer:?}");
    let all = inputs(&*engine, &UsageQuery::default()).await;
    assert_eq!(all.iter().map(|(_, tokens)| tokens).sum::<u64>(), 3);
}

pub(crate) async fn usage_is_told_as_asked_for(engine: Arc<dyn Engine>, clock: Clock) {
    let tenants = ["default", "other"].map(|tenant| Tenant::new(tenant).unwrap());
    let mut tokens = 1;
    for day in 0..2 {
        for tenant in &tenants {
            for user in ["a", "b"] {
                let user = StreamKey::new(tenant.clone(), UserId::new(user).unwrap());
                let [t, s] = ["t", "s"].map(|thread| {
                    tokens *= 2;
                    spent(&user, &format!("{day}{thread}"), thread, thread, tokens / 2)
                });
                append(&*engine, &user, at(clock.now(), [t, s])).await;
            }
        }
        clock.advance(DAY);
    }
    let first = Day::of(START);
    let all = UsageQuery::default;
    for (query, want) in [
        (all(), 0xffff),
        (
            UsageQuery {
                tenant: Some(tenants[1].clone()),
                ..all()
            },
            0xf0f0,
        ),
        (
            UsageQuery {
                user: UserId::new("b").ok(),
                ..all()
            },
            0xcccc,
        ),
        (
            UsageQuery {
                tenant: Some(tenants[0].clone()),
                user: UserId::new("b").ok(),
                ..all()
            },
            0x0c0c,
        ),
        (
            UsageQuery {
                thread_id: ThreadId::new("s").ok(),
                ..all()
            },
            0xaaaa,
        ),
        (
            UsageQuery {
                provider: Some("p".into()),
                model: Some("t".into()),
                ..all()
            },
            0x5555,
        ),
        (
            UsageQuery {
                provider: Some("".into()),
                ..all()
            },
            0,
        ),
        (
            UsageQuery {
                days: first..=first,
                ..all()
            },
            0x00ff,
        ),
        (
            UsageQuery {
                days: Day::of(START + DAY)..=Day::LAST,
                ..all()
            },
            0xff00,
        ),
    ] {
        let told = inputs(&*engine, &query).await;
        let told: u64 = told.iter().map(|(_, tokens)| tokens).sum();
        assert_eq!(told, want, "{told:#x} {query:?}");
    }
}

pub(crate) async fn usage_outlives_its_events_until_the_day_is_forgotten(
    engine: Arc<dyn Engine>,
    clock: Clock,
) {
    let user = stream("u");
    append(&*engine, &user, at(START, [spent(&user, "1", "t", "m", 1)])).await;
    pass_a_day(&*engine, &clock).await;
    assert!(engine.load(&user).await.unwrap().is_empty());
    let all = UsageQuery::default();
    let over = Day::of(START).end() + USAGE_AGE;
    clock.set(Timestamp::from_millis(over.as_millis() - 1));
    maintain_all(&*engine).await;
    assert_eq!(inputs(&*engine, &all).await.len(), 1);
    clock.set(over);
    maintain_all(&*engine).await;
    assert_eq!(inputs(&*engine, &all).await.len(), 0);
}

pub(crate) async fn too_many_series_keep_their_totals_by_tenant_model_and_day(
    engine: Arc<dyn Engine>,
    clock: Clock,
) {
    let mut want = BTreeMap::<(String, Day, Model), u64>::new();
    let mut tokens = 0;
    for n in 0..USAGE_SERIES + 200 {
        let tenant = Tenant::new(["default", "other"][n % 2]).unwrap();
        let user = StreamKey::new(tenant, UserId::new(&format!("u{}", n / 7)).unwrap());
        let now = START + DAY * u32::try_from(n % 3).unwrap();
        tokens += 1;
        let model = ["m", "n"][n % 5 / 3];
        let event = spent(&user, &format!("e{n}"), &format!("t{n}"), model, tokens);
        let model = Model::of(event.usage.as_ref().unwrap());
        let key = (user.tenant().as_str().to_owned(), Day::of(now), model);
        *want.entry(key).or_default() += tokens;
        append(&*engine, &user, at(now, [event])).await;
    }
    clock.advance(3 * DAY);
    let mut told = BTreeMap::new();
    for (series, sum) in engine.usage(&UsageQuery::default()).await.unwrap() {
        let key = (series.tenant.as_str().to_owned(), series.day, series.model);
        *told.entry(key).or_default() += sum.tokens.input;
    }
    assert_eq!(told, want);
}
