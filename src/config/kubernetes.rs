//! Variables that Kubernetes puts into a container: several for each Service of the namespace, such as
//! `EMITTER_HTTP_SERVICE_HOST` for one that is named `emitter-http`. They look like settings.

use std::ffi::OsStr;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether Kubernetes makes a variable of this name with such a value.
pub(super) fn injects(name: &str, value: &OsStr) -> bool {
    let Some(value) = value.to_str() else {
        return false;
    };
    let is_url = || {
        let mut schemes = PROTOCOLS.iter().map(|protocol| protocol.to_lowercase());
        schemes.any(|scheme| value.starts_with(&format!("{scheme}://")))
    };
    name.ends_with("_SERVICE_HOST")
        || (is_service_port(name) && value.parse::<u16>().is_ok())
        || (name.ends_with("_PORT") && is_url())
        || is_port(name)
}

/// `…_SERVICE_PORT`, or `…_SERVICE_PORT_` and the name of a port.
fn is_service_port(name: &str) -> bool {
    name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_")
}

/// `…_PORT_8080_TCP`, also followed by `_PROTO`, `_PORT` or `_ADDR`.
fn is_port(name: &str) -> bool {
    let whole = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|part| name.strip_suffix(part))
        .unwrap_or(name);
    let Some((service, protocol)) = whole.rsplit_once('_') else {
        return false;
    };
    let number = service.rsplit_once("_PORT_").map(|(_, number)| number);
    PROTOCOLS.contains(&protocol) && number.is_some_and(|number| number.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_forms_of_kubernetes_are_recognized() {
        for (name, value) in [
            ("EMITTER_SERVICE_HOST", "10.0.0.1"),
            ("EMITTER_HTTP_SERVICE_HOST", "10.0.0.1"),
            ("EMITTER_HTTP_SERVICE_PORT", "8080"),
            ("EMITTER_HTTP_SERVICE_PORT_HTTP", "8080"),
            ("EMITTER_PORT", "tcp://10.0.0.1:8080"),
            ("EMITTER_HTTP_PORT", "udp://10.0.0.1:8080"),
            ("EMITTER_HTTP_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("EMITTER_HTTP_PORT_8080_TCP_PROTO", "tcp"),
            ("EMITTER_HTTP_PORT_8080_TCP_PORT", "8080"),
            ("EMITTER_HTTP_PORT_8080_SCTP_ADDR", "10.0.0.1"),
        ] {
            assert!(injects(name, OsStr::new(value)), "{name}={value}");
        }
        for (name, value) in [
            // Mistakes of a person.
            ("EMITTER_HTTP_PORT", "8080"),
            ("EMITTER_GRPC_LISTEN_PORT", "50051"),
            ("EMITTER_SERVICE_PORT", "many"),
            ("EMITTER_PORT_8080", "8080"),
            ("EMITTER_PORT_HTTP_TCP", "8080"),
            ("EMITTER_PORT_8080_HTTP", "8080"),
            ("EMITTER_SERVICE_NAME", "emitter"),
        ] {
            assert!(!injects(name, OsStr::new(value)), "{name}={value}");
        }
    }
}
