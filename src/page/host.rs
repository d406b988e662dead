//! Under which names a service for development answers.
//!
//! A page anywhere on the web can have its own name resolved to 127.0.0.1 (DNS rebinding), and would then be of the same
//! origin as this service. It cannot have the browser say another name than its own in `Host`: so only names are
//! answered that nobody else can own.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header::HOST, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Passes on what is asked under an IP address or a name of the machine itself, and nothing else.
pub(super) async fn check(request: Request, next: Next) -> Response {
    if is_own(request.headers()) {
        return next.run(request).await;
    }
    let answer = "this service answers under an IP address or localhost only\n";
    (StatusCode::MISDIRECTED_REQUEST, answer).into_response()
}

/// The host that was asked for, if its name is nobody else's.
pub(super) fn own(headers: &HeaderMap) -> Option<Authority> {
    let mut given = headers.get_all(HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else {
        return None;
    };
    let host: Authority = host.to_str().ok()?.parse().ok()?;
    if host.as_str().contains('@') {
        return None;
    }
    let name = host.host().to_ascii_lowercase();
    // It becomes a part of the page's policy.
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if !name.chars().all(plain) {
        return None;
    }
    let address = name.trim_start_matches('[').trim_end_matches(']');
    // Browsers keep all of `localhost` to the machine itself (RFC 6761, section 6.3).
    let local = name == "localhost" || name.ends_with(".localhost");
    (local || address.parse::<IpAddr>().is_ok()).then_some(host)
}

fn is_own(headers: &HeaderMap) -> bool {
    own(headers).is_some()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answers(hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        is_own(&headers)
    }

    #[test]
    fn only_names_that_nobody_else_can_own_are_answered() {
        for own in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.168.1.5:8080",
            "[::1]:8080",
            "localhost:8080",
            "LocalHost",
            "app.localhost:1",
        ] {
            assert!(answers(&[own]), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil@127.0.0.1",
            "localhost.evil.example",
            "notlocalhost",
            "",
            "127.0.0.1 evil.example",
            "a;x.localhost",
            "x,y.localhost",
        ] {
            assert!(!answers(&[other]), "{other}");
        }
        assert!(!answers(&[]));
        assert!(!answers(&["127.0.0.1", "evil.example"]));
    }
}
