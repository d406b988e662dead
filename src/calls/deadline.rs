//! By when a call must be answered.

use std::time::Duration;

use tokio::time::{self, Instant};

/// By when a call must be answered so that its caller still hears it: a little before the caller stops waiting.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// How long an answer may take to get to the caller; less where the caller waits for less than four times that.
const ANSWER_TRAVELS: Duration = Duration::from_millis(10);

impl Deadline {
    /// The deadline that the request was given where it came in, else by its header `grpc-timeout` as of now: up to
    /// eight digits and a unit. One that is malformed counts as absent.
    pub fn of<B>(request: &http::Request<B>) -> Option<Self> {
        if let Some(known) = request.extensions().get() {
            return Some(*known);
        }
        let text = request.headers().get("grpc-timeout")?.to_str().ok()?;
        let timeout = timeout(text)?;
        let waits = timeout - ANSWER_TRAVELS.min(timeout / 4);
        Instant::now().checked_add(waits).map(Self)
    }

    /// Waits for `deadline`, for ever if there is none.
    pub async fn passed(deadline: Option<Self>) {
        match deadline {
            Some(Self(at)) => time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

fn timeout(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain)?;
    Some(match &text[digits.len()..] {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_up_to_eight_digits_and_a_unit() {
        for (text, want) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("0S", Some(Duration::ZERO)),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("1SS", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("100000000S", None),
        ] {
            assert_eq!(timeout(text), want, "{text:?}");
        }
    }
}
