//! The address of a listener, as it is set.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use serde::{Deserialize, Deserializer, de};

/// `HOST:PORT`. A host name is resolved when the port is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress(String);

impl ListenAddress {
    /// The address as it was set.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is wrong with the address, if anything. `example` is a correct one.
    pub(super) fn problem(&self, example: &str) -> Option<String> {
        let text = &self.0;
        let expected = format!("expected HOST:PORT, such as {example}");
        if text.parse::<SocketAddr>().is_ok() {
            return None;
        }
        if text.contains('/') && !text.contains("://") {
            return Some(format!(
                "{text:?} is a path, and the service listens on TCP only: {expected}"
            ));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Some(format!("{text:?} is not an address: {expected}"));
        };
        if host.contains(':') && !text.contains("://") {
            return Some(format!(
                "{text:?} is not an address: {expected}; an IPv6 address stands in brackets, such as [::1]:8080"
            ));
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if digits && is_host(host) && port.parse::<u16>().is_err() {
            return Some(format!(
                "{text:?} is not an address: the port is not within 0 and 65535, {expected}"
            ));
        }
        if host.is_empty() && digits {
            return Some(format!(
                "{text:?} is not an address: {expected}, or 0.0.0.0:{port} for all interfaces"
            ));
        }
        (!digits || !is_host(host)).then(|| format!("{text:?} is not an address: {expected}"))
    }
}

/// Whether `text` is an IPv4 address or a host name.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    // No top-level domain is a number: this is an IPv4 address, or a wrong one.
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    name.len() <= 253 && name.split('.').all(is_label)
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = ListenAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("HOST:PORT as a text, such as \"127.0.0.1:50051\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ListenAddress, E> {
                Ok(ListenAddress(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<String> {
        ListenAddress(text.to_owned()).problem("127.0.0.1:1")
    }

    #[test]
    fn addresses_and_host_names_are_accepted() {
        for text in [
            "127.0.0.1:50051",
            "0.0.0.0:0",
            "[::1]:8080",
            "[::]:8080",
            "localhost:8080",
            "emitter-1.internal:8080",
            "my_host:1",
            "host.example.:65535",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn a_wrong_address_names_the_value_and_an_example() {
        let expected = "expected HOST:PORT, such as 127.0.0.1:1";
        for (text, want) in [
            ("22251", format!("is not an address: {expected}")),
            ("", format!("is not an address: {expected}")),
            ("localhost", format!("is not an address: {expected}")),
            ("localhost:", format!("is not an address: {expected}")),
            ("localhost:http", format!("is not an address: {expected}")),
            ("a b:80", format!("is not an address: {expected}")),
            ("300.1.1.1:80", format!("is not an address: {expected}")),
            ("127.0.0.1:+80", format!("is not an address: {expected}")),
            (
                "http://127.0.0.1:80",
                format!("is not an address: {expected}"),
            ),
            (
                ":8080",
                format!("is not an address: {expected}, or 0.0.0.0:8080 for all interfaces"),
            ),
            (
                "127.0.0.1:99999",
                format!("is not an address: the port is not within 0 and 65535, {expected}"),
            ),
            (
                "::1:8080",
                format!(
                    "is not an address: {expected}; an IPv6 address stands in brackets, such as [::1]:8080"
                ),
            ),
            (
                "/run/emitter.sock",
                format!("is a path, and the service listens on TCP only: {expected}"),
            ),
            (
                "unix:/run/emitter.sock",
                format!("is a path, and the service listens on TCP only: {expected}"),
            ),
        ] {
            assert_eq!(problem(text), Some(format!("{text:?} {want}")));
        }
    }
}
