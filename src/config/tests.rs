use std::{io::Write as _, time::Duration};

use super::*;
use crate::usage::{self, Model, PriceTable};

mod mistakes;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let auth = [
        ("EMITTER_AUTH__ISSUER", "platform"),
        ("EMITTER_AUTH__SECRET", SECRET),
    ];
    auth.iter()
        .chain(pairs)
        .map(|(name, text)| (name.into(), text.into()))
        .collect()
}

fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(&Sources {
        environment: variables(pairs),
        ..Sources::default()
    })
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_file(text: &str) -> Result<Config, String> {
    let file = file(text);
    Config::load(&Sources {
        file: Some(file.path().to_owned()),
        environment: variables(&[]),
        ..Sources::default()
    })
    .map_err(|error| {
        let path = file.path().display().to_string();
        error.to_string().replace(&path, "FILE")
    })
}

#[test]
fn the_reference_lacks_nothing_but_who_issues_tokens() {
    let config = load(&[]).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.grpc_listen.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.http_listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.drain, Duration::from_secs(30));
    assert_eq!(settings.limits.event_bytes, 64 << 10);
    assert_eq!(settings.retention.total_bytes, 1 << 30);
    assert_eq!(settings.dedupe.window, Duration::from_secs(600));
    assert_eq!(config.access.secret, SECRET.as_bytes());

    let error = Config::load(&Sources::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "auth.issuer: is required\nauth.secret: is required: this or auth.secret_file"
    );
}

#[test]
fn the_reference_used_as_a_file_changes_nothing() {
    let file = file(REFERENCE);
    let with = Resolved::new(&Sources {
        file: Some(file.path().to_owned()),
        environment: variables(&[]),
        ..Sources::default()
    });
    let without = Resolved::new(&Sources {
        environment: variables(&[]),
        ..Sources::default()
    });
    let plain = |resolved: &Resolved| {
        let text = resolved.to_toml();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split(" # ").next().unwrap_or_default().to_owned())
            .collect();
        lines
    };
    assert_eq!(plain(&with), plain(&without));
    assert!(with.into_config().is_ok());
}

#[test]
fn flags_beat_variables_beat_the_file() {
    let file = file("http_listen = '127.0.0.1:1'\nadmin_listen = '127.0.0.1:1'\ndrain = '1m'");
    let config = Config::load(&Sources {
        file: Some(file.path().to_owned()),
        environment: variables(&[
            ("EMITTER_HTTP_LISTEN", "127.0.0.1:2"),
            ("EMITTER_ADMIN_LISTEN", "127.0.0.1:2"),
        ]),
        flags: vec![("admin_listen", "127.0.0.1:3".into())],
    })
    .unwrap();
    assert_eq!(config.settings.drain, Duration::from_secs(60));
    assert_eq!(config.settings.http_listen.as_str(), "127.0.0.1:2");
    assert_eq!(config.settings.admin_listen.as_str(), "127.0.0.1:3");
}

#[test]
fn variables_are_read_as_what_their_key_is() {
    let config = load(&[
        ("EMITTER_LIMITS__EVENT_BYTES", "32KiB"),
        ("EMITTER_LIMITS__TAIL_BYTES", "65536"),
        ("EMITTER_LIMITS__BATCH_EVENTS", "10"),
        ("EMITTER_RETENTION__AGE", "90m"),
        ("EMITTER_REDACTION__ENABLED", "false"),
        (
            "EMITTER_ORIGINS",
            "https://a.example, http://localhost:3000",
        ),
        ("EMITTER_LOG__LEVEL", "warn,emitter::egress=debug"),
        // Neither of these is a setting.
        ("EMITTER_DEV_SECRET", "x"),
        ("EMITTER_SERVICE_HOST", "10.0.0.1"),
        ("EMITTER_PORT", "tcp://10.0.0.1:8080"),
        ("EMITTER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("EMITTER_HTTP_SERVICE_PORT_HTTP", "8080"),
        ("HOME", "/"),
    ])
    .unwrap();
    let settings = &config.settings;
    assert_eq!(settings.limits.event_bytes, 32 << 10);
    assert_eq!(settings.limits.tail_bytes, 65536);
    assert_eq!(settings.limits.batch_events, 10);
    assert_eq!(settings.retention.age, Duration::from_secs(5400));
    assert!(!settings.redaction.enabled);
    assert_eq!(
        settings.origins,
        ["https://a.example", "http://localhost:3000"]
    );
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let cases = [
        (
            ("EMITTER_LIMITS__BATCH_EVENTS", "0"),
            "limits.batch_events: 0 is not within 1 and 1000 (EMITTER_LIMITS__BATCH_EVENTS)",
        ),
        (
            ("EMITTER_LIMITS__BATCH_EVENTS", "ten"),
            "limits.batch_events: \"ten\" is not a whole number (EMITTER_LIMITS__BATCH_EVENTS)",
        ),
        (
            ("EMITTER_LIMITS__EVENT_BYTES", "large"),
            "limits.event_bytes: invalid value string \"large\", expected a size such as \"64KiB\" or a number of \
             bytes (EMITTER_LIMITS__EVENT_BYTES)",
        ),
        (
            ("EMITTER_LIMITS__EVENT_BITES", "1"),
            "limits.event_bites: is not a known key (EMITTER_LIMITS__EVENT_BITES)",
        ),
        (
            ("EMITTER_GRPC_LISTN", "1"),
            "grpc_listn: is not a known key (EMITTER_GRPC_LISTN)",
        ),
        (
            ("EMITTER_DRAIN", "0s"),
            "drain: 0s is not within 1s and 1h (EMITTER_DRAIN)",
        ),
        (
            ("EMITTER_LOG__JSON", "maybe"),
            "log.json: \"maybe\" is not true or false (EMITTER_LOG__JSON)",
        ),
        (
            ("EMITTER_AUTH__SECRET", "short"),
            "auth.secret: the secret has 5 bytes; it needs 32 or more (EMITTER_AUTH__SECRET)",
        ),
        (
            ("EMITTER_ENGINE__DATA_DIR", "events"),
            "engine.data_dir: is set, but engine.kind is not \"durable\" (EMITTER_ENGINE__DATA_DIR)",
        ),
        (
            ("EMITTER_REDIS__CLOCK_TOLERANCE", "1s"),
            "redis.clock_tolerance: 1s is not within 5s to 1h (EMITTER_REDIS__CLOCK_TOLERANCE)",
        ),
        (
            ("EMITTER_ORIGINS", "https://a.example/"),
            "origins: \"https://a.example/\" is not an origin: expected SCHEME://HOST, such as https://app.example.com, or \
             https://*.example.com for all subdomains (EMITTER_ORIGINS)",
        ),
        (
            ("EMITTER_ORIGINS", "https://*"),
            "origins: \"https://*\" is not an origin: expected SCHEME://HOST, such as https://app.example.com, or \
             https://*.example.com for all subdomains (EMITTER_ORIGINS)",
        ),
        (
            ("EMITTER_ORIGINS", "https://A.example"),
            "origins: \"https://A.example\" is not an origin: expected SCHEME://HOST, such as https://app.example.com, or \
             https://*.example.com for all subdomains (EMITTER_ORIGINS)",
        ),
        (
            ("EMITTER_ORIGINS", "https://a.example:443"),
            "origins: \"https://a.example:443\" is not an origin: expected SCHEME://HOST, such as https://app.example.com, or \
             https://*.example.com for all subdomains (EMITTER_ORIGINS)",
        ),
    ];
    for ((name, text), want) in cases {
        let error = load(&[(name, text)]).unwrap_err();
        assert_eq!(error.to_string(), want, "{name}={text}");
    }
}

/// Else what a part of Redis answered would be dropped because another part did not.
#[cfg(feature = "redis")]
#[test]
fn the_engine_has_time_for_several_calls_of_redis() {
    let redis = ("EMITTER_ENGINE__KIND", "redis");
    for (timeout, fits) in [("2s", true), ("3s", false)] {
        let loaded = load(&[redis, ("EMITTER_REDIS__TIMEOUT", timeout)]);
        let problem = loaded.err().map(|error| error.to_string());
        let problem = problem.unwrap_or_default();
        let told = problem.starts_with("limits.engine_timeout: must be at least 15s");
        assert_eq!((problem.is_empty(), told), (fits, !fits), "{problem}");
    }
    // No other engine asks Redis.
    assert!(load(&[("EMITTER_REDIS__TIMEOUT", "3s")]).is_ok());
}

#[test]
fn a_wrong_file_is_told_by_its_path() {
    let cases = [
        (
            "[limits]\ndepth = 0",
            "limits.depth: 0 is not within 1 and 32 (FILE)",
        ),
        (
            "[redis]\nmode = 'cluster'\nurls = ['redis://a:1', 'rediss://b:1']",
            "redis.urls: all of a cluster are reached over TLS (rediss://), or none (FILE)",
        ),
        ("nonsense = 1", "nonsense: is not a known key (FILE)"),
        ("[limits]\nx = 1", "limits.x: is not a known key (FILE)"),
        (
            "drain = 5",
            "drain: invalid type: found signed int `5`, expected a duration (FILE)",
        ),
        ("limits = 3", "limits: is not a known key (FILE)"),
    ];
    for (text, want) in cases {
        assert_eq!(load_file(text).unwrap_err(), want, "{text}");
    }
    let error = load_file("drain = '1s'\n[auth]\nsecret = \"topsecret").unwrap_err();
    assert!(error.starts_with("FILE: line 3: "), "{error}");
    assert!(!error.contains("topsecret"), "{error}");
    let error = load_file("[auth]\nsecret = topsecret").unwrap_err();
    assert!(error.starts_with("FILE: line 2: "), "{error}");
    assert_eq!(error.lines().count(), 1, "one problem is one line: {error}");
    assert!(!error.contains("topsecret"), "{error}");

    let missing = Config::load(&Sources {
        file: Some("/nonexistent/emitter.toml".into()),
        environment: variables(&[]),
        ..Sources::default()
    })
    .unwrap_err();
    let want = "/nonexistent/emitter.toml: cannot be read: ";
    assert!(missing.to_string().starts_with(want), "{missing}");
}

#[test]
fn the_secret_may_stand_in_a_file() {
    let secret = file(&format!("{SECRET}\n"));
    let path = secret.path().display().to_string();
    let sources = |secret: &str| Sources {
        environment: vec![
            ("EMITTER_AUTH__ISSUER".into(), "platform".into()),
            ("EMITTER_AUTH__SECRET".into(), secret.into()),
            ("EMITTER_AUTH__SECRET_FILE".into(), path.clone().into()),
        ],
        ..Sources::default()
    };
    let config = Config::load(&sources("")).unwrap();
    assert_eq!(config.access.secret, SECRET.as_bytes());
    let both = Config::load(&sources(SECRET)).unwrap_err().to_string();
    assert!(both.contains("auth.secret_file: is set besides"), "{both}");
}

#[test]
fn the_secret_is_never_printed() {
    let resolved = Resolved::new(&Sources {
        environment: variables(&[]),
        ..Sources::default()
    });
    let shown = resolved.to_toml();
    assert!(
        shown.contains("secret = \"[set]\" # EMITTER_AUTH__SECRET"),
        "{shown}"
    );
    let config = resolved.into_config().unwrap();
    for text in [shown, format!("{config:?}")] {
        assert!(!text.contains(SECRET), "{text}");
    }
    let numeric = load_file("[auth]\nsecret = 12345678901234567").unwrap_or_else(|error| {
        panic!("the variable comes over the file: {error}");
    });
    assert_eq!(numeric.access.secret, SECRET.as_bytes());
}

#[test]
fn prices_are_read_exactly_and_shown_as_they_were_set() {
    let text = r#"
        drain = "5s"
        [[prices]]
        provider = "acme"
        model = "large-2"
        input = "1.25"
        output = "10"
        [[prices]]
        provider = ""
        model = "small"
        input = "0.000000001"
        output = "0.4"
        cached_input = "0"
        cache_write = "2"
        reasoning = "999999999.999999999"
    "#;
    let config = load_file(text).unwrap();
    let prices = &config.settings.prices;
    let nano_usd = |price: &Price| {
        let Price { input, output, .. } = *price;
        (
            input,
            output,
            price.cached_input,
            price.cache_write,
            price.cache_write_1h,
            price.reasoning,
        )
    };
    assert_eq!(
        nano_usd(&prices[0]),
        (1_250_000_000, 10_000_000_000, None, None, None, None)
    );
    assert_eq!(
        nano_usd(&prices[1]),
        (
            1,
            400_000_000,
            Some(0),
            Some(2_000_000_000),
            None,
            Some(999_999_999_999_999_999)
        )
    );
    let model = |provider: &str, model: &str| Model {
        provider: provider.into(),
        model: model.into(),
    };
    let price = |input, output, cached_input, cache_write, reasoning| usage::Price {
        input,
        output,
        cached_input,
        cache_write,
        // Like other cache writes where it is not stated.
        cache_write_1h: cache_write,
        reasoning,
    };
    let table = PriceTable::new([
        (
            model("acme", "large-2"),
            price(
                1_250_000_000,
                10_000_000_000,
                1_250_000_000,
                1_250_000_000,
                10_000_000_000,
            ),
        ),
        (
            model("", "small"),
            price(1, 400_000_000, 0, 2_000_000_000, 999_999_999_999_999_999),
        ),
    ]);
    assert_eq!(config.prices(), table);
    assert_eq!(*config.sequencer().rules.prices, table);

    let file = file(text);
    let shown = Resolved::new(&Sources {
        file: Some(file.path().to_owned()),
        environment: variables(&[]),
        ..Sources::default()
    })
    .to_toml();
    let small = r#"{ cache_write = "2", cached_input = "0", input = "0.000000001", model = "small", output = "0.4", provider = "", "#;
    assert!(shown.contains(small), "{shown}");
    let again = load_file(&shown.replace("secret = \"[set]\"", "")).unwrap();
    assert_eq!(again.prices(), table);
}

#[test]
fn a_wrong_price_is_told() {
    let with = |lines: &str| {
        format!("[[prices]]\nprovider = 'p'\nmodel = 'm'\ninput = '1'\noutput = '1'\n{lines}")
    };
    let cases = [
        (
            with("cached_input = '1,25'"),
            "prices.0.cached_input: invalid value string \"1,25\", expected dollars as a text such as \"1.25\", \
             with at most 9 decimals (FILE)",
        ),
        (
            with("reasoning = 1.25"),
            "prices.0.reasoning: invalid type: found float `1.25`, expected dollars as a text such as \"1.25\", with at \
             most 9 decimals (FILE)",
        ),
        (
            with("thinking = '1'"),
            "prices.0.thinking: unknown field: found `thinking`, expected `one of `provider`, `model`, `input`, `output`, \
             `cached_input`, `cache_write`, `cache_write_1h`, `reasoning`` (FILE)",
        ),
        (
            "[[prices]]\nprovider = 'p'\nmodel = 'm'\ninput = '1'".to_owned(),
            "prices.0: missing field `output` (FILE)",
        ),
        (
            with("[[prices]]\nprovider = 'p'\nmodel = 'm'\ninput = '2'\noutput = '2'"),
            "prices: provider \"p\", model \"m\" is there twice (FILE)",
        ),
        (
            "[usage]\nage = '23h'".to_owned(),
            "usage.age: 23h is not within 1day and 9years 11months 27days 21h 50m 24s (FILE)",
        ),
        (
            "[usage]\nseries = 0".to_owned(),
            "usage.series: 0 is not within 1 and 4294967296 (FILE)",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(load_file(&text).unwrap_err(), want, "{text}");
    }
    let many = (0..10_001)
        .map(|n| format!("{{ provider = 'p', model = 'm{n}', input = '1', output = '1' }},\n"));
    let many = format!("prices = [\n{}]", many.collect::<String>());
    assert_eq!(
        load_file(&many).unwrap_err(),
        "prices: 10001 is not within 0 and 10000 (FILE)"
    );
    let error = load(&[("EMITTER_PRICES", "acme")]).unwrap_err().to_string();
    let want = "prices.0: invalid type: found string \"acme\", expected a table such as in [[prices]] (EMITTER_PRICES)";
    assert_eq!(error, want);
}
