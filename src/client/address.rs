//! The address of a service, with or without TLS.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};
use tonic::transport::{Certificate, ClientTlsConfig};

/// The port of `https` and `wss` addresses that name none.
const TLS_PORT: u16 = 443;

/// The address of a service: a host and a port, behind one of the schemes `http`, `ws`, `https` and `wss` or behind none.
/// Over `https` and `wss`, which mean the same here, the client speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: String,
    ca_pem: Option<Vec<u8>>,
}

/// An address that no client can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not an address such as http://127.0.0.1:8080 or https://events.example: {problem}"
)]
pub struct UrlError {
    /// The address.
    pub url: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Address {
    /// The address `url`. Over TLS the client trusts the certificates that the system trusts.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_pem: None,
        }
    }

    /// The same address. Over TLS the client trusts the certificates in `pem` in place of the system's.
    #[must_use]
    pub fn trusting(mut self, pem: Vec<u8>) -> Self {
        self.ca_pem = Some(pem);
        self
    }

    /// The address with one of these schemes: the first without TLS, the second with it.
    pub(super) fn with_scheme(&self, plain: &str, tls: &str) -> Result<String, UrlError> {
        let (is_tls, authority) = self.parts()?;
        let scheme = if is_tls { tls } else { plain };
        Ok(format!("{scheme}://{authority}"))
    }

    /// How gRPC speaks TLS to this address; `None`: not at all.
    pub(super) fn grpc_tls(&self) -> Result<Option<ClientTlsConfig>, UrlError> {
        if !self.parts()?.0 {
            return Ok(None);
        }
        let tls = ClientTlsConfig::new();
        let Some(pem) = &self.ca_pem else {
            return Ok(Some(tls.with_native_roots()));
        };
        // The gRPC library ignores what is no certificate, so the file is checked here.
        self.roots(pem)?;
        Ok(Some(tls.ca_certificate(Certificate::from_pem(pem))))
    }

    /// How a WebSocket speaks TLS to this address; `None`: not at all.
    pub(super) fn websocket_tls(&self) -> Result<Option<Arc<ClientConfig>>, UrlError> {
        if !self.parts()?.0 {
            return Ok(None);
        }
        let roots = match &self.ca_pem {
            Some(pem) => self.roots(pem)?,
            None => {
                let mut roots = RootCertStore::empty();
                // Certificates of the system that cannot be read count as missing, as in other clients.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.error(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }

    fn roots(&self, pem: &[u8]) -> Result<RootCertStore, UrlError> {
        let bad = |error: &dyn std::fmt::Display| {
            self.error(format!(
                "the CA file: {error}; expected certificates in PEM"
            ))
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(&error))?;
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        if roots.is_empty() {
            return Err(bad(&"it has no certificate"));
        }
        Ok(roots)
    }

    /// Whether it is reached over TLS, and its host and port.
    fn parts(&self) -> Result<(bool, String), UrlError> {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let is_tls = match scheme {
            "https" | "wss" => true,
            "" | "http" | "ws" => false,
            _ => return Err(self.error("expected one of the schemes http, https, ws, wss")),
        };
        let authority = rest.trim_end_matches('/');
        let parsed = authority.parse::<http::uri::Authority>().ok();
        let parsed = parsed.filter(|parsed| !parsed.host().is_empty() && !authority.contains('@'));
        match parsed.map(|parsed| parsed.port().is_some()) {
            Some(true) => Ok((is_tls, authority.to_owned())),
            Some(false) if is_tls => Ok((true, format!("{authority}:{TLS_PORT}"))),
            _ => Err(self.error("expected a host and a port, and no path")),
        }
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> UrlError {
        UrlError {
            url: self.url.clone(),
            problem: problem.into(),
        }
    }
}

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<&String> for Address {
    fn from(url: &String) -> Self {
        Self::new(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        let cases = [
            ("http://127.0.0.1:80", Some("ws://127.0.0.1:80")),
            ("http://[::1]:80/", Some("ws://[::1]:80")),
            ("localhost:80", Some("ws://localhost:80")),
            ("ws://a.example:1", Some("ws://a.example:1")),
            ("https://a.example:1", Some("wss://a.example:1")),
            ("https://a.example/", Some("wss://a.example:443")),
            ("wss://a.example", Some("wss://a.example:443")),
            ("https://", None),
            ("ftp://a.example:1", None),
            ("http://a.example", None),
            ("http://a.example:1/path", None),
            ("https://a.example/path", None),
            ("http://user@a.example:1", None),
            ("", None),
        ];
        for (url, want) in cases {
            let got = Address::new(url).with_scheme("ws", "wss").ok();
            assert_eq!(got.as_deref(), want, "{url}");
        }
    }

    #[test]
    fn only_addresses_with_tls_have_a_tls_config() {
        for (url, want) in [("http://a:1", false), ("https://a:1", true)] {
            let address = Address::new(url);
            let got = address.websocket_tls().map(|tls| tls.is_some());
            assert_eq!(got, Ok(want), "{url}");
            let got = address.grpc_tls().map(|tls| tls.is_some());
            assert_eq!(got, Ok(want), "{url}");
        }
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "no certificate", broken] {
            let address = Address::new("https://a:1").trusting(pem.as_bytes().to_vec());
            for problem in [
                address.websocket_tls().map(drop).unwrap_err().problem,
                address.grpc_tls().map(drop).unwrap_err().problem,
            ] {
                assert!(problem.starts_with("the CA file: "), "{pem:?}: {problem}");
            }
        }
    }
}
