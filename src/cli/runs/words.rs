//! Times, numbers and states as a person reads them.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    proto::v1::{
        AdjustmentAction, Cost, CostBasis, RunState, Source, Transport, Usage, UsageTotals,
    },
};

use crate::cli::text::plain;

/// The name of a state that came over the wire.
pub(super) fn state(state: i32) -> &'static str {
    match RunState::try_from(state).unwrap_or_default() {
        RunState::Unspecified => "unknown",
        RunState::Running => "running",
        RunState::Waiting => "waiting",
        RunState::Completed => "completed",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
    }
}

/// The colour of a state.
pub(super) fn state_colour(state: i32) -> &'static str {
    match RunState::try_from(state).unwrap_or_default() {
        RunState::Completed => "\u{1b}[32m",
        RunState::Failed => "\u{1b}[31m",
        RunState::Waiting | RunState::Cancelled => "\u{1b}[33m",
        RunState::Running | RunState::Unspecified => "\u{1b}[36m",
    }
}

/// The name of an action on a value of an event.
pub(in crate::cli) fn adjustment(action: AdjustmentAction) -> &'static str {
    match action {
        AdjustmentAction::Unspecified => "changed",
        AdjustmentAction::Dropped => "dropped",
        AdjustmentAction::Truncated => "truncated",
        AdjustmentAction::Clamped => "clamped",
        AdjustmentAction::Nulled => "nulled",
        AdjustmentAction::Corrected => "corrected",
    }
}

/// `text` in `colour`, where there are colours.
pub(super) fn painted(text: &str, colour: &str, coloured: bool) -> String {
    match coloured && !text.is_empty() {
        true => format!("{colour}{text}\u{1b}[0m"),
        false => text.to_owned(),
    }
}

/// How a reader is connected.
pub(in crate::cli) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Websocket => "WebSocket",
        Transport::Sse => "SSE",
        Transport::Grpc => "gRPC",
        Transport::Unspecified => "reader",
    }
}

/// A moment that came over the wire; without one, or before 1970, the beginning of time.
pub(in crate::cli) fn moment(at: Option<&prost_types::Timestamp>) -> Timestamp {
    let at = at.copied().unwrap_or_default();
    let seconds = u64::try_from(at.seconds).unwrap_or_default();
    let millis = u64::try_from(at.nanos / 1_000_000).unwrap_or_default();
    Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(millis))
}

/// `at` as `2026-11-21 10:00:00`, in UTC.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.to_string().replace('T', " ");
    text.get(..19).unwrap_or(&text).to_owned()
}

/// A span in one or two units: `118ms`, `1.318s`, `2m03s`, `5h07m`, `3d04h`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |big: u64, of: &str, small: u64, unit: &str| format!("{big}{of}{small:02}{unit}");
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{:.3}s", span.as_secs_f64()),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86400, "d", seconds / 3600 % 24, "h"),
    }
}

/// How long after the beginning something was, such as `+0.118s`.
pub(super) fn offset(after: Duration) -> String {
    match after.as_secs() {
        0 => format!("+{:.3}s", after.as_secs_f64()),
        _ => format!("+{}", span(after)),
    }
}

/// A span in its largest unit: `3s`, `2m`, `5h`, `3d`.
pub(in crate::cli) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A source, such as `svc-1 term 2`.
pub(in crate::cli) fn source(source: &Source) -> String {
    format!("{} term {}", plain(&source.producer_id), source.term)
}

/// What one event adds, such as `120 in, 30 out, $0.000450`. A cost of `?` is unknown.
pub(super) fn usage(usage: &Usage, cost: Option<&Cost>) -> String {
    let model = [&usage.provider, &usage.model].map(|name| plain(name));
    let named = model.iter().filter(|name| !name.is_empty());
    let named = named.map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
    let tokens = format!("{} in, {} out", usage.input_tokens, usage.output_tokens);
    let cost = cost.map(|cost| match cost.basis() {
        CostBasis::Unpriced => "?".to_owned(),
        _ => dollars(cost.nano_usd),
    });
    let parts = [named, tokens, cost.unwrap_or_default()];
    let said = parts.iter().filter(|part| !part.is_empty());
    said.cloned().collect::<Vec<_>>().join(", ")
}

/// What usage adds up to, such as `120 in (20 cached), 30 out (5 reasoning), $0.000450`.
pub(super) fn totals(totals: &UsageTotals) -> String {
    let of = |count: u64, what: &str| match count {
        0 => String::new(),
        count => format!(" ({count} {what})"),
    };
    let unpriced = match totals.unpriced_events {
        0 => String::new(),
        1 => ", and 1 event without a price".to_owned(),
        count => format!(", and {count} events without a price"),
    };
    format!(
        "{} in{}{}, {} out{}, {}{unpriced}",
        totals.input_tokens,
        of(totals.cached_input_tokens, "cached"),
        of(totals.cache_write_input_tokens, "written to the cache"),
        totals.output_tokens,
        of(totals.reasoning_tokens, "reasoning"),
        dollars(totals.cost_nano_usd),
    )
}

/// Billionths of a US dollar, to the millionth.
fn dollars(nano: u64) -> String {
    let micro = nano / 1000 + u64::from(nano % 1000 >= 500);
    format!("${}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_units_that_fit() {
        let cases = [
            (0, "0ms", "0s"),
            (118, "118ms", "0s"),
            (1_318, "1.318s", "1s"),
            (59_999, "59.999s", "59s"),
            (123_000, "2m03s", "2m"),
            (18_420_000, "5h07m", "5h"),
            (273_600_000, "3d04h", "3d"),
        ];
        for (millis, exact, rough) in cases {
            let length = Duration::from_millis(millis);
            assert_eq!((span(length), age(length)), (exact.into(), rough.into()));
        }
    }

    #[test]
    fn money_is_rounded_to_the_millionth() {
        let cases = [
            (0, "$0.000000"),
            (499, "$0.000000"),
            (500, "$0.000001"),
            (12_345_678_901, "$12.345679"),
        ];
        for (nano, want) in cases {
            assert_eq!(dollars(nano), want);
        }
    }

    #[test]
    fn names_from_outside_do_not_act_on_the_terminal() {
        let evil = "\u{1b}[2J";
        let named = Source {
            producer_id: evil.into(),
            term: 1,
        };
        let used = Usage {
            model: evil.into(),
            ..Usage::default()
        };
        let cost = |nano_usd, basis: CostBasis| Cost {
            nano_usd,
            basis: basis.into(),
        };
        assert_eq!(source(&named), "\\u{1b}[2J term 1");
        let priced = cost(1_500, CostBasis::Priced);
        assert_eq!(
            usage(&used, Some(&priced)),
            "\\u{1b}[2J, 0 in, 0 out, $0.000002"
        );
        let unpriced = cost(0, CostBasis::Unpriced);
        assert_eq!(usage(&used, Some(&unpriced)), "\\u{1b}[2J, 0 in, 0 out, ?");
    }
}
