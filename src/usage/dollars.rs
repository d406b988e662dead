//! Money: dollars as people write them, billionths of a dollar as they are added up.

/// How many decimals a dollar has here.
const DECIMALS: usize = 9;

/// The billionths of a dollar in `text`, such as "1.25": up to 9 digits, and up to 9 more after a point. Exact.
pub fn parse_dollars(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits =
        |text: &str| text.len() <= DECIMALS && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // At most 18 digits: they fit.
    format!("{whole}{fraction:0<DECIMALS$}").parse().ok()
}

/// `nano_usd` billionths of a dollar for people: to the millionth, rounded half up.
pub fn format_dollars(nano_usd: u64) -> String {
    let micro = nano_usd / 1_000 + u64::from(nano_usd % 1_000 >= 500);
    if micro == 0 && nano_usd > 0 {
        return "<$0.000001".into();
    }
    format!("${}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, want) in [
            ("0", Some(0)),
            ("1.25", Some(1_250_000_000)),
            ("0.1", Some(100_000_000)),
            ("0.000000001", Some(1)),
            ("015.0", Some(15_000_000_000)),
            ("999999999.999999999", Some(999_999_999_999_999_999)),
            ("0.0000000001", None),
            ("1000000000", None),
            ("", None),
            (".5", None),
            ("1.", None),
            ("1.2.3", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1,25", None),
            ("1e3", None),
            ("$1", None),
            ("１", None),
        ] {
            assert_eq!(parse_dollars(text), want, "{text:?}");
        }
    }

    #[test]
    fn dollars_are_shown_rounded_but_never_as_nothing() {
        for (nano_usd, want) in [
            (0, "$0.000000"),
            (1, "<$0.000001"),
            (499, "<$0.000001"),
            (500, "$0.000001"),
            (1_499, "$0.000001"),
            (1_500, "$0.000002"),
            (12_345_678_500, "$12.345679"),
            (u64::MAX, "$18446744073.709552"),
        ] {
            assert_eq!(format_dollars(nano_usd), want, "{nano_usd}");
        }
    }
}
