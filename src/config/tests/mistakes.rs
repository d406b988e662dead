//! How mistakes are reported.

use super::*;

#[test]
fn a_wrong_address_names_the_value_the_form_and_an_example() {
    let error = load(&[("EMITTER_GRPC_LISTEN", "22251")]).unwrap_err();
    let want = "grpc_listen: \"22251\" is not an address: expected HOST:PORT, such as 127.0.0.1:50051 \
                (EMITTER_GRPC_LISTEN)";
    assert_eq!(error.to_string(), want);
    let want = "http_listen: invalid type: found signed int `8080`, expected HOST:PORT as a text, such as \
                \"127.0.0.1:50051\" (FILE)";
    assert_eq!(load_file("http_listen = 8080").unwrap_err(), want);
    assert!(load(&[("EMITTER_HTTP_LISTEN", "localhost:8080")]).is_ok());
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = r#"
        drain = 5
        nonsense = 1
        auth_issuer = "x"
        grpc_listen = "22251"
        origins = ["https://a.example/"]
        prices = [
          { provider = "p", model = "a", input = "1,2", output = "1" },
          { provider = "p", model = "b", input = "1", output = "1" },
          { provider = "p", model = "c", input = "1", output = 2 },
        ]
        [engine]
        kind = "durabel"
        data_dir = "/var/lib/emitter"
        [limits]
        batch_events = "many"
        event_bytes = "2"
        depth = 0
        [usage]
        age = "1h"
        [redis]
        urls = [7]
    "#;
    let error = load_file(text).unwrap_err();
    let mut places: Vec<&str> = error
        .lines()
        .map(|line| line.split_once(": ").unwrap().0)
        .collect();
    places.sort_unstable();
    let want = [
        "auth_issuer",
        "drain",
        "engine.kind",
        "grpc_listen",
        "limits.batch_events",
        "limits.depth",
        "limits.event_bytes",
        "nonsense",
        "origins",
        "prices.0.input",
        "prices.2.output",
        "redis.urls.0",
        "usage.age",
    ];
    assert_eq!(places, want, "{error}");
    assert!(
        error.lines().all(|line| line.ends_with("(FILE)")),
        "{error}"
    );
}

#[test]
fn a_key_with_other_separators_is_suggested() {
    for (name, want) in [
        ("EMITTER_AUTH_SECRET", "EMITTER_AUTH__SECRET"),
        ("EMITTER_REDIS_URLS", "EMITTER_REDIS__URLS"),
        ("EMITTER_GRPC__LISTEN", "EMITTER_GRPC_LISTEN"),
        ("EMITTER_LIMITS_EVENT_BYTES", "EMITTER_LIMITS__EVENT_BYTES"),
    ] {
        let error = load(&[(name, "x")]).unwrap_err().to_string();
        let want = format!("is not a known key: did you mean {want}? ({name})");
        assert!(error.ends_with(&want), "{error}");
    }
    let error = load_file("auth-issuer = 'x'").unwrap_err();
    assert_eq!(
        error,
        "auth-issuer: is not a known key: did you mean auth.issuer? (FILE)"
    );
}
