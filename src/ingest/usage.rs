//! Usage in the canonical form: cached, cache-write and reasoning tokens are parts of input and output.
//!
//! Providers count differently, and usage never refuses an event. So numbers that do not fit the form are converted or
//! corrected here, before the event is stored, and every reader and every sum gets the same ones.

use super::{
    check::{Checker, NAME_CHARS},
    path::Path,
};
use crate::{
    event::{self, Action, Tokens},
    proto::v1::{Usage, UsageAccounting},
};

/// Brings `usage` into the canonical form. What was out of range or contradicted itself is adjusted.
pub(super) fn adjust(usage: &mut Usage, c: &mut Checker) {
    let at = &Path::ROOT.field("usage");
    c.cut_line(&at.field("provider"), &mut usage.provider, NAME_CHARS);
    c.cut_line(&at.field("model"), &mut usage.model, NAME_CHARS);
    for (name, count) in [
        ("input_tokens", &mut usage.input_tokens),
        ("output_tokens", &mut usage.output_tokens),
        ("cached_input_tokens", &mut usage.cached_input_tokens),
        (
            "cache_write_input_tokens",
            &mut usage.cache_write_input_tokens,
        ),
        (
            "cache_write_1h_input_tokens",
            &mut usage.cache_write_1h_input_tokens,
        ),
        ("reasoning_tokens", &mut usage.reasoning_tokens),
    ] {
        c.clamp_count(&at.field(name), count);
    }
    if let Some(cost) = &mut usage.cost_nano_usd {
        c.clamp_count(&at.field("cost_nano_usd"), cost);
    }
    if UsageAccounting::try_from(usage.accounting).is_err() {
        c.adjust(&at.field("accounting"), Action::Dropped, "is unknown");
    }
    let beside = usage.accounting() == UsageAccounting::Exclusive;
    // What readers get is INCLUSIVE, which is the default.
    usage.set_accounting(UsageAccounting::Unspecified);
    // Writes for one hour are a part of all writes in either accounting. This must come before their sum is used.
    let writes = &mut usage.cache_write_input_tokens;
    let of_writes = usage.cache_write_1h_input_tokens;
    include(at, "cache_write_input_tokens", writes, of_writes, false, c);
    let of_input = usage.cached_input_tokens + usage.cache_write_input_tokens;
    let input = &mut usage.input_tokens;
    include(at, "input_tokens", input, of_input, beside, c);
    let output = &mut usage.output_tokens;
    let reasoning = usage.reasoning_tokens;
    include(at, "output_tokens", output, reasoning, beside, c);
}

/// Adds `parts` to their `total` where they were counted beside it, which is stated by `beside` or evident as they
/// exceed it.
fn include(
    at: &Path<'_>,
    name: &'static str,
    total: &mut u64,
    parts: u64,
    beside: bool,
    c: &mut Checker,
) {
    let at = &at.field(name);
    let exceeded = !beside && parts > *total;
    if !beside && !exceeded {
        return;
    }
    // Each number is at most 2^53 - 1, so their sum cannot overflow.
    *total += parts;
    if exceeded {
        c.adjust(
            at,
            Action::Corrected,
            "must include the tokens that are its parts",
        );
    }
    c.clamp_count(at, total);
}

/// What a canonical `usage` says was consumed.
pub(super) fn consumed(usage: &Usage) -> event::Usage {
    event::Usage {
        provider: usage.provider.as_str().into(),
        model: usage.model.as_str().into(),
        tokens: Tokens {
            input: usage.input_tokens,
            output: usage.output_tokens,
            cached_input: usage.cached_input_tokens,
            cache_write: usage.cache_write_input_tokens,
            cache_write_1h: usage.cache_write_1h_input_tokens,
            reasoning: usage.reasoning_tokens,
        },
        cost_nano_usd: usage.cost_nano_usd,
    }
}
