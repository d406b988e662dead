//! Usage: what providers' APIs report, as producers map it, ends in one canonical form.

use serde_json::{Value, json};

use super::{accept, body, event};
use crate::{
    event::{Action, Tokens},
    proto::v1::{self, AgentThinking, Usage, UsageAccounting, event::Payload},
    usage::{Model, Price, PriceTable},
};

/// A completed run with `usage`.
fn using(usage: Usage) -> v1::Event {
    v1::Event {
        usage: Some(usage),
        ..event(Payload::AgentThinking(AgentThinking::default()))
    }
}

/// The usage that is stored of `usage`, and the fields that were adjusted.
fn stored(usage: Usage) -> (Usage, Vec<(String, Action)>) {
    let accepted = accept(&using(usage)).unwrap();
    let adjusted = accepted.adjustments.iter();
    let adjusted = adjusted.map(|adjusted| (adjusted.field.to_string(), adjusted.action));
    let adjusted = adjusted.collect();
    (body(&accepted).usage.unwrap(), adjusted)
}

/// What a producer makes of the numbers that a provider reports by name.
type Mapping = fn(&dyn Fn(&str) -> u64) -> Usage;

/// What one API reports, and what must be stored of it.
struct Reported {
    api: &'static str,
    /// What the response holds.
    response: Value,
    /// The mapping that a producer makes.
    map: Mapping,
    want: Tokens,
    /// By the prices below.
    nano_usd: u64,
}

/// The fields are those of the APIs.
fn reported() -> [Reported; 6] {
    [
        Reported {
            api: "OpenAI, Chat Completions: cached tokens and reasoning are parts",
            response: json!({
                "prompt_tokens": 2_006, "completion_tokens": 300, "total_tokens": 2_306,
                "prompt_tokens_details": {"cached_tokens": 1_920},
                "completion_tokens_details": {"reasoning_tokens": 192}
            }),
            map: |of| Usage {
                input_tokens: of("/prompt_tokens"),
                output_tokens: of("/completion_tokens"),
                cached_input_tokens: of("/prompt_tokens_details/cached_tokens"),
                reasoning_tokens: of("/completion_tokens_details/reasoning_tokens"),
                ..Usage::default()
            },
            want: Tokens {
                input: 2_006,
                output: 300,
                cached_input: 1_920,
                reasoning: 192,
                ..Tokens::default()
            },
            nano_usd: 86 * 10 + 1_920 + 108 * 100 + 192 * 1_000,
        },
        Reported {
            api: "OpenAI, Responses: the same under other names",
            response: json!({
                "input_tokens": 81, "output_tokens": 1_035, "total_tokens": 1_116,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 832}
            }),
            map: |of| Usage {
                input_tokens: of("/input_tokens"),
                output_tokens: of("/output_tokens"),
                cached_input_tokens: of("/input_tokens_details/cached_tokens"),
                reasoning_tokens: of("/output_tokens_details/reasoning_tokens"),
                ..Usage::default()
            },
            want: Tokens {
                input: 81,
                output: 1_035,
                reasoning: 832,
                ..Tokens::default()
            },
            nano_usd: 81 * 10 + 203 * 100 + 832 * 1_000,
        },
        Reported {
            api: "Anthropic, Messages: cache reads and writes are beside the input; thinking is within the output",
            response: json!({
                "input_tokens": 21, "output_tokens": 393,
                "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 1_888,
                "cache_creation": {"ephemeral_5m_input_tokens": 1_400, "ephemeral_1h_input_tokens": 488}
            }),
            map: |of| Usage {
                accounting: UsageAccounting::Exclusive.into(),
                input_tokens: of("/input_tokens"),
                output_tokens: of("/output_tokens"),
                cached_input_tokens: of("/cache_read_input_tokens"),
                cache_write_input_tokens: of("/cache_creation_input_tokens"),
                cache_write_1h_input_tokens: of("/cache_creation/ephemeral_1h_input_tokens"),
                ..Usage::default()
            },
            want: Tokens {
                input: 11_909,
                output: 393,
                cached_input: 10_000,
                cache_write: 1_888,
                cache_write_1h: 488,
                reasoning: 0,
            },
            nano_usd: 21 * 10 + 10_000 + 1_400 * 12 + 488 * 20 + 393 * 100,
        },
        Reported {
            api: "Bedrock, Converse: cache reads and writes are beside the input",
            response: json!({
                "inputTokens": 15, "outputTokens": 90, "totalTokens": 1_129,
                "cacheReadInputTokens": 1_000, "cacheWriteInputTokens": 24
            }),
            map: |of| Usage {
                accounting: UsageAccounting::Exclusive.into(),
                input_tokens: of("/inputTokens"),
                output_tokens: of("/outputTokens"),
                cached_input_tokens: of("/cacheReadInputTokens"),
                cache_write_input_tokens: of("/cacheWriteInputTokens"),
                ..Usage::default()
            },
            want: Tokens {
                input: 1_039,
                output: 90,
                cached_input: 1_000,
                cache_write: 24,
                ..Tokens::default()
            },
            nano_usd: 15 * 10 + 1_000 + 24 * 12 + 90 * 100,
        },
        Reported {
            api: "Gemini, generateContent: thoughts are beside the candidates",
            response: json!({
                "promptTokenCount": 1_200, "candidatesTokenCount": 400, "thoughtsTokenCount": 160,
                "totalTokenCount": 1_760
            }),
            map: gemini,
            want: Tokens {
                input: 1_200,
                output: 560,
                reasoning: 160,
                ..Tokens::default()
            },
            nano_usd: 1_200 * 10 + 400 * 100 + 160 * 1_000,
        },
        Reported {
            api: "Gemini with cached content, which is within the prompt",
            response: json!({
                "promptTokenCount": 1_200, "cachedContentTokenCount": 1_000, "candidatesTokenCount": 40,
                "thoughtsTokenCount": 160, "totalTokenCount": 1_400
            }),
            map: gemini,
            want: Tokens {
                input: 1_200,
                output: 200,
                cached_input: 1_000,
                reasoning: 160,
                ..Tokens::default()
            },
            nano_usd: 200 * 10 + 1_000 + 40 * 100 + 160 * 1_000,
        },
    ]
}

/// Its prompt includes cached content, unlike its candidates the thoughts.
fn gemini(of: &dyn Fn(&str) -> u64) -> Usage {
    Usage {
        accounting: UsageAccounting::Exclusive.into(),
        input_tokens: of("/promptTokenCount") - of("/cachedContentTokenCount"),
        output_tokens: of("/candidatesTokenCount"),
        cached_input_tokens: of("/cachedContentTokenCount"),
        reasoning_tokens: of("/thoughtsTokenCount"),
        ..Usage::default()
    }
}

/// A price per token of each class, in billionths of a dollar.
fn prices() -> PriceTable {
    let model = Model {
        provider: "".into(),
        model: "".into(),
    };
    let price = Price {
        input: 10_000_000,
        cached_input: 1_000_000,
        cache_write: 12_000_000,
        cache_write_1h: 20_000_000,
        output: 100_000_000,
        reasoning: 1_000_000_000,
    };
    PriceTable::new([(model, price)])
}

#[test]
fn what_providers_report_is_stored_in_one_form_and_priced_by_class() {
    for reported in reported() {
        let api = reported.api;
        let number = |at: &str| {
            reported
                .response
                .pointer(at)
                .map_or(0, |n| n.as_u64().unwrap())
        };
        let accepted = accept(&using((reported.map)(&number))).unwrap();
        let usage = accepted.usage.as_deref().unwrap();
        assert_eq!(usage.tokens, reported.want, "{api}");
        assert!(accepted.adjustments.is_empty(), "{api}");
        assert_eq!(prices().cost(usage).nano_usd, reported.nano_usd, "{api}");
        // The API's own total, where it has one.
        for total in ["/total_tokens", "/totalTokens", "/totalTokenCount"] {
            if let Some(total) = reported.response.pointer(total) {
                let sum = usage.tokens.input + usage.tokens.output;
                assert_eq!(*total, sum, "{api}");
            }
        }
        // Readers get the form that is added up.
        let shown = body(&accepted).usage.unwrap();
        assert_eq!(shown.accounting, 0, "{api}");
        let told = (shown.input_tokens, shown.output_tokens);
        assert_eq!(told, (reported.want.input, reported.want.output), "{api}");
    }
}

#[test]
fn parts_that_exceed_their_total_are_added_to_it() {
    let input = "usage.input_tokens";
    let output = "usage.output_tokens";
    let write = "usage.cache_write_input_tokens";
    for ([i, o, cached, w, w1h, reasoning], want, adjusted) in [
        ([10, 9, 10, 0, 0, 9], [10, 9, 10, 0], &[][..]),
        ([10, 9, 4, 6, 6, 9], [10, 9, 4, 6], &[]),
        ([1, 0, 2, 0, 0, 0], [3, 0, 2, 0], &[input]),
        ([10, 9, 5, 6, 0, 0], [21, 9, 5, 6], &[input]),
        ([0, 1, 0, 0, 0, 2], [0, 3, 0, 0], &[output]),
        ([0, 0, 0, 0, 7, 0], [7, 0, 0, 7], &[write, input]),
        ([100, 0, 0, 1, 7, 0], [100, 0, 0, 8], &[write]),
        ([1, 1, 2, 3, 4, 5], [10, 6, 2, 7], &[write, input, output]),
    ] {
        let (usage, changes) = stored(Usage {
            input_tokens: i,
            output_tokens: o,
            cached_input_tokens: cached,
            cache_write_input_tokens: w,
            cache_write_1h_input_tokens: w1h,
            reasoning_tokens: reasoning,
            ..Usage::default()
        });
        let told = [
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_write_input_tokens,
        ];
        assert_eq!(told, want, "{usage:?}");
        let changes: Vec<_> = changes
            .iter()
            .map(|(field, action)| (&**field, *action))
            .collect();
        let adjusted = adjusted.iter().map(|field| (*field, Action::Corrected));
        assert_eq!(changes, adjusted.collect::<Vec<_>>(), "{usage:?}");
    }
}

#[test]
fn a_number_out_of_range_is_lowered_and_refuses_nothing() {
    let most = (1 << 53) - 1;
    let (usage, changes) = stored(Usage {
        accounting: UsageAccounting::Exclusive.into(),
        input_tokens: most,
        cached_input_tokens: u64::MAX,
        reasoning_tokens: 1 << 53,
        output_tokens: 0,
        cost_nano_usd: Some(u64::MAX),
        ..Usage::default()
    });
    let want = Usage {
        input_tokens: most,
        cached_input_tokens: most,
        reasoning_tokens: most,
        output_tokens: most,
        cost_nano_usd: Some(most),
        ..Usage::default()
    };
    assert_eq!(usage, want);
    let fields: Vec<_> = changes
        .iter()
        .map(|(field, action)| (&**field, *action))
        .collect();
    let want = [
        "usage.cached_input_tokens",
        "usage.reasoning_tokens",
        "usage.cost_nano_usd",
        "usage.input_tokens",
    ];
    assert_eq!(fields, want.map(|field| (field, Action::Clamped)));

    let unknown = Usage {
        accounting: 99,
        input_tokens: 5,
        cached_input_tokens: 2,
        ..Usage::default()
    };
    let (usage, changes) = stored(unknown);
    assert_eq!((usage.input_tokens, usage.accounting), (5, 0));
    assert_eq!(changes, [("usage.accounting".to_owned(), Action::Dropped)]);
}
