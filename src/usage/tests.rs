use super::*;
use crate::event::{CostBasis, Tokens};

fn model(name: &str) -> Model {
    Model {
        provider: "p".into(),
        model: name.into(),
    }
}

fn usage(name: &str, tokens: Tokens, cost_nano_usd: Option<u64>) -> Usage {
    let Model { provider, model } = model(name);
    Usage {
        provider,
        model,
        tokens,
        cost_nano_usd,
    }
}

fn input(input: u64) -> Tokens {
    Tokens {
        input,
        ..Tokens::default()
    }
}

/// A price in billionths of a dollar per million tokens.
fn priced(name: &str, price: Price) -> PriceTable {
    PriceTable::new([(model(name), price)])
}

fn totals(prices: &PriceTable, added: &[Usage]) -> UsageTotals {
    let mut run = UsageByModel::default();
    for usage in added {
        run.add(usage, prices.cost(usage));
    }
    run.totals()
}

#[test]
fn cached_written_and_reasoning_tokens_have_prices_of_their_own() {
    let prices = priced(
        "m",
        Price {
            input: 1_000_000,
            output: 1_000_000_000,
            cached_input: 1_000_000_000_000,
            cache_write: 1_000_000_000_000_000,
            cache_write_1h: 100_000_000_000_000_000,
            reasoning: 10_000_000_000_000_000,
        },
    );
    let tokens = Tokens {
        input: 32,
        output: 34,
        cached_input: 5,
        cache_write: 9,
        cache_write_1h: 2,
        reasoning: 9,
    };
    let totals = totals(&prices, &[usage("m", tokens, None)]);
    assert_eq!(
        totals.cost_nano_usd,
        18 + 25_000 + 5_000_000 + 7_000_000_000 + 2 * 100_000_000_000 + 90_000_000_000
    );
    assert_eq!(totals.tokens, tokens);
    assert_eq!(totals.unpriced_events, 0);
}

#[test]
fn each_event_is_rounded_by_itself_half_up() {
    // A token costs half a billionth.
    let half = Price {
        input: 500_000,
        ..Price::default()
    };
    let prices = priced("m", half);
    for (events, tokens, want) in [
        (1, 1, 1),
        (2, 1, 2),
        (3, 1, 3),
        (1, 2, 1),
        (1, 3, 2),
        (1_000, 1, 1_000),
    ] {
        let added = vec![usage("m", input(tokens), None); events];
        let totals = totals(&prices, &added);
        assert_eq!(totals.cost_nano_usd, want, "{events} of {tokens}");
    }
    // Just below a half goes down.
    let prices = priced(
        "m",
        Price {
            input: 499_999,
            ..Price::default()
        },
    );
    let added = vec![usage("m", input(1), None); 1_000];
    assert_eq!(totals(&prices, &added).cost_nano_usd, 0);
}

#[test]
fn an_event_without_tokens_costs_nothing_and_is_priced() {
    let none = usage("unknown", Tokens::default(), None);
    let cost = PriceTable::default().cost(&none);
    let want = Cost {
        nano_usd: 0,
        basis: CostBasis::Priced,
    };
    assert_eq!(cost, want);
    assert_eq!(totals(&PriceTable::default(), &[none]).unpriced_events, 0);
}

#[test]
fn a_stated_cost_beats_the_price_and_an_unknown_model_is_unpriced() {
    let price = Price {
        input: 7_000_000,
        ..Price::default()
    };
    let prices = PriceTable::new([
        (model("m"), price),
        (
            Model {
                provider: "".into(),
                ..model("n")
            },
            price,
        ),
    ]);
    let totals = totals(
        &prices,
        &[
            usage("m", input(10), Some(1)),
            usage("m", input(10), Some(0)),
            usage("m", input(10), None),
            usage("n", input(10), Some(100)),
            // The price of another provider's model of this name.
            usage("n", input(10), None),
            usage("unknown", input(10), None),
        ],
    );
    assert_eq!(totals.events, 6);
    assert_eq!(totals.tokens.input, 60);
    assert_eq!(totals.cost_nano_usd, 1 + 70 + 100);
    assert_eq!(totals.unpriced_events, 2);
}

#[test]
fn the_order_and_the_grouping_of_additions_do_not_matter() {
    let added: Vec<Usage> = (0..20)
        .map(|n| usage("m", input(n), (n % 3 == 0).then_some(n)))
        .collect();
    let sum = |added: &[Usage]| {
        let mut sum = UsageTotals::default();
        let cost = Cost::without_price;
        added.iter().for_each(|usage| sum.add(usage, cost(usage)));
        sum
    };
    let whole = sum(&added);
    let mut merged = sum(&added[13..]);
    merged.merge(&sum(&added[..13]));
    assert_eq!(merged, whole);
    assert_eq!((whole.events, whole.unpriced_events), (20, 13));
}

#[test]
fn a_runs_totals_stay_exact_in_json() {
    let prices = priced(
        "m",
        Price {
            input: u64::MAX,
            output: u64::MAX,
            cached_input: u64::MAX,
            cache_write: u64::MAX,
            cache_write_1h: u64::MAX,
            reasoning: u64::MAX,
        },
    );
    let most = Tokens {
        input: RUN_MOST,
        output: RUN_MOST,
        cached_input: RUN_MOST,
        cache_write: RUN_MOST,
        cache_write_1h: RUN_MOST,
        reasoning: RUN_MOST,
    };
    for cost in [None, Some(RUN_MOST)] {
        let added = vec![usage("m", most, cost); 3_000];
        let totals = totals(&prices, &added);
        assert_eq!(totals.tokens, most, "{cost:?}");
        assert_eq!(totals.cost_nano_usd, RUN_MOST, "{cost:?}");
        assert_eq!(totals.events, 3_000);
    }
    // What is added up over runs stops later, and does not wrap around either.
    let mut sum = UsageTotals::default();
    for _ in 0..3_000 {
        let most = usage("m", most, Some(RUN_MOST));
        sum.add(&most, prices.cost(&most));
    }
    assert_eq!((sum.tokens.input, sum.cost_nano_usd), (u64::MAX, u64::MAX));
}

#[test]
fn a_run_tells_so_many_models_apart_and_no_more() {
    let price = Price {
        input: 1_000_000,
        ..Price::default()
    };
    let names: Vec<String> = (0..RUN_MODELS + 5).map(|n| format!("m{n}")).collect();
    let prices = PriceTable::new(names.iter().map(|name| (model(name), price)));
    let mut run = UsageByModel::default();
    for _ in 0..2 {
        for name in &names {
            let usage = usage(name, input(3), None);
            run.add(&usage, prices.cost(&usage));
        }
    }
    let told: Vec<&str> = run.iter().map(|(model, _)| &*model.model).collect();
    assert_eq!(told.len(), RUN_MODELS + 1);
    assert_eq!(told[RUN_MODELS - 1..], ["m15", "(other)"]);
    let totals = run.totals();
    assert_eq!(totals.events, 2 * names.len() as u64);
    assert_eq!(totals.tokens.input, 6 * names.len() as u64);
    // Each event has the price of its own model, also where the run does not tell it apart.
    assert_eq!(totals.cost_nano_usd, 6 * names.len() as u64);
    assert_eq!(totals.unpriced_events, 0);
}
