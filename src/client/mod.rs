//! A client in Rust: a producer and an operator over gRPC, and a reader over WebSocket that resumes by itself.

mod backoff;
mod credential;
mod frame;
mod grpc;
mod operator;
mod producer;
mod reader;
mod seen;
mod socket;

pub use credential::Credential;
pub use frame::Frame;
pub use operator::{Answer, Operator};
pub use producer::{Fate, Producer, ProducerConfig};
pub use reader::{Item, Reader, ReaderConfig, Start, Stopped};

/// An address that no client can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not an address such as http://127.0.0.1:8080: {problem}")]
pub struct UrlError {
    /// The address.
    pub url: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The host and port of `url`, which begins with one of `schemes` or with none.
fn authority<'a>(url: &'a str, schemes: &[&str]) -> Result<&'a str, UrlError> {
    let error = |problem: &str| UrlError {
        url: url.to_owned(),
        problem: problem.to_owned(),
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if matches!(scheme, "https" | "wss") {
        return Err(error("this client does not speak TLS"));
    }
    if !scheme.is_empty() && !schemes.contains(&scheme) {
        return Err(error("the scheme is another one"));
    }
    let authority = rest.trim_end_matches('/');
    let valid = authority
        .parse::<http::uri::Authority>()
        .is_ok_and(|parsed| parsed.port().is_some() && !authority.contains('@'));
    if valid {
        Ok(authority)
    } else {
        Err(error("it needs a host and a port, and no path"))
    }
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        let cases = [
            ("http://127.0.0.1:80", Some("127.0.0.1:80")),
            ("http://[::1]:80/", Some("[::1]:80")),
            ("localhost:80", Some("localhost:80")),
            ("ws://a.example:1", Some("a.example:1")),
            ("https://a.example:1", None),
            ("ftp://a.example:1", None),
            ("http://a.example", None),
            ("http://a.example:1/path", None),
            ("http://user@a.example:1", None),
            ("", None),
        ];
        for (url, want) in cases {
            assert_eq!(authority(url, &["http", "ws"]).ok(), want, "{url}");
        }
    }
}
