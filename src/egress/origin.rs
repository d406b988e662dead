//! Which pages may connect: the setting `origins`, and the `Origin` that a browser sends.

use http::{HeaderMap, HeaderValue, header::ORIGIN};

use crate::{
    reason::{Reason, Refusal},
    telemetry::LogLimit,
};

/// Admits every page.
const ANY: &str = "*";

/// In place of a host's first labels: any, at any depth, but at least one.
const SUBDOMAINS: &str = "*.";

/// How much of a refused origin is repeated, in bytes: the peer chooses it.
const SHOWN: usize = 64;

/// Whether `text` can match an origin as browsers send it: in lower case, a scheme, a host, and a port only if it is
/// not the scheme's own. `*.` may stand before the host for all its subdomains; `*` alone matches every origin.
pub fn is_pattern(text: &str) -> bool {
    let exact = match text.split_once("://") {
        _ if text == ANY => return true,
        Some((scheme, host)) => match host.strip_prefix(SUBDOMAINS) {
            // An address has no subdomains.
            Some(domain) if !has_name(domain) => return false,
            Some(domain) => format!("{scheme}://{domain}"),
            None => text.to_owned(),
        },
        None => return false,
    };
    is_origin(&exact)
}

/// Whether the host of `authority` is a name, not an IP address.
fn has_name(authority: &str) -> bool {
    let host = authority.split(':').next().unwrap_or_default();
    let last = host.rsplit('.').next().unwrap_or_default();
    let letter = |byte: u8| byte.is_ascii_alphabetic();
    host.starts_with(|c: char| c.is_ascii_alphanumeric()) && last.bytes().any(letter)
}

fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let own_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    // Anything else, such as a capital, a path or a slash at the end, would never match.
    text == format!("{scheme}://{authority}").to_lowercase()
        && !authority.as_str().contains(['@', '*'])
        && (authority.port_u16().is_none() || authority.port_u16() != own_port)
}

/// The origin of the page that asks, if one does. Every `Origin` must match one of `listed`.
pub(super) fn check<'a>(
    headers: &'a HeaderMap,
    listed: &[String],
) -> Result<Option<&'a HeaderValue>, Refusal> {
    let admitted = |origin: &&HeaderValue| listed.iter().any(|one| admits(one, origin.as_bytes()));
    let all = headers.get_all(ORIGIN);
    match all.iter().find(|origin| !admitted(origin)) {
        None => Ok(headers.get(ORIGIN)),
        Some(origin) => Err(refused(origin)),
    }
}

/// Whether the pattern `listed` matches `origin`.
fn admits(listed: &str, origin: &[u8]) -> bool {
    if listed == ANY || listed.as_bytes() == origin {
        return true;
    }
    let Some((scheme, domain)) = listed.split_once("://*") else {
        return false;
    };
    let labels = origin
        .strip_prefix(scheme.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"://"))
        .and_then(|rest| rest.strip_suffix(domain.as_bytes()));
    let of_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    labels.is_some_and(|labels| {
        !labels.is_empty() && !labels.starts_with(b".") && labels.iter().all(of_host)
    })
}

/// Names the origin and the setting, to the peer and in the log.
fn refused(origin: &HeaderValue) -> Refusal {
    static REFUSED: LogLimit = LogLimit::new();
    let shown = &origin.as_bytes()[..origin.len().min(SHOWN)];
    let shown = String::from_utf8_lossy(shown);
    if let Some(left_out) = REFUSED.admit() {
        tracing::warn!(
            origin = &*shown,
            left_out,
            "a page is refused: its origin is not in the setting `origins`"
        );
    }
    let message = format!("{shown} is not in `origins`");
    Refusal::new(Reason::OriginRefused, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(origins: &[&'static str]) -> HeaderMap {
        let lines = origins
            .iter()
            .map(|o| (ORIGIN, HeaderValue::from_static(o)));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    fn list(origins: &[&str]) -> Vec<String> {
        origins.iter().map(|o| (*o).to_owned()).collect()
    }

    #[test]
    fn no_page_may_connect_unless_it_is_listed() {
        let page = from(&["https://any.example"]);
        assert!(check(&page, &list(&[])).is_err());
        let any = check(&page, &list(&["*"])).unwrap();
        assert_eq!(any.unwrap(), "https://any.example");
        assert_eq!(check(&HeaderMap::new(), &list(&[])), Ok(None));
        let two = from(&["https://any.example", "https://evil.example"]);
        assert!(check(&two, &list(&["https://any.example"])).is_err());
    }

    #[test]
    fn a_pattern_matches_subdomains_of_its_scheme_and_port() {
        let cases = [
            ("https://*.example.com", "https://app.example.com", true),
            ("https://*.example.com", "https://a.b-c.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            (
                "https://*.example.com",
                "https://app.example.com.evil",
                false,
            ),
            ("https://*.example.com", "http://app.example.com", false),
            (
                "https://*.example.com",
                "https://app.example.com:8443",
                false,
            ),
            ("https://*.example.com", "https://evil/.example.com", false),
            ("https://*.example.com", "https://evil@a.example.com", false),
            ("https://*.example.com", "https://evil:1.example.com", false),
            ("https://*.example.com", "https://*.example.com", true),
            ("http://*.localhost:3000", "http://a.localhost:3000", true),
            ("http://*.localhost:3000", "http://a.localhost:3001", false),
            ("http://*.localhost:3000", "http://a.localhost", false),
            (
                "https://app.example.com",
                "https://x.app.example.com",
                false,
            ),
            ("https://*.example.com", "null", false),
            ("*", "null", true),
        ];
        for (listed, origin, want) in cases {
            assert_eq!(admits(listed, origin.as_bytes()), want, "{listed} {origin}");
        }
    }

    #[test]
    fn what_can_match_no_origin_is_no_pattern() {
        for good in [
            "*",
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "https://*.example.com",
            "https://*.example.com:8443",
            "http://*.localhost:3000",
            "capacitor://localhost",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in [
            "",
            "app.example.com",
            "*.example.com",
            "https://*",
            "https://*.",
            "https://*example.com",
            "https://app*.example.com",
            "https://app.*.example.com",
            "https://*.*.example.com",
            "https://*.127.0.0.1",
            "https://*.[::1]",
            "https://*..example.com",
            "https://*.example.com/",
            "https://*.example.com:443",
            "https://*.example.com:*",
            "https://*.Example.com",
            "https://user@*.example.com",
            "https://*.user@example.com",
            "*://*.example.com",
        ] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn a_refused_origin_and_the_setting_are_named_within_a_bound() {
        let refusal = check(&from(&["https://evil.example"]), &[]).unwrap_err();
        assert_eq!(refusal.reason, Reason::OriginRefused);
        assert_eq!(refusal.message, "https://evil.example is not in `origins`");
        let mut headers = HeaderMap::new();
        let long = HeaderValue::from_bytes(&[b'x'; 1000]).unwrap();
        headers.insert(ORIGIN, long);
        let refusal = check(&headers, &[]).unwrap_err();
        let want = format!("{} is not in `origins`", "x".repeat(SHOWN));
        assert_eq!(refusal.message, want);
    }
}
