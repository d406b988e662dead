use proptest::prelude::*;
use serde_json::json;

use super::{names::words, *};

fn redactor() -> Redactor {
    Redactor::new(&Redaction::default()).unwrap()
}

#[test]
fn keys_split_into_words() {
    for (key, want) in [
        ("", vec![]),
        ("--", vec![]),
        ("max_tokens", vec!["max", "tokens"]),
        ("apiKey", vec!["api", "Key"]),
        ("X-Api-Key", vec!["X", "Api", "Key"]),
        ("HTTPAuthorization", vec!["HTTP", "Authorization"]),
        ("oauth2Token", vec!["oauth", "2", "Token"]),
        ("a.b c/dE", vec!["a", "b", "c", "d", "E"]),
        ("größeÄnderung", vec!["größe", "Änderung"]),
        ("名前key", vec!["名前key"]),
    ] {
        assert_eq!(words(key).collect::<Vec<_>>(), want, "{key}");
    }
}

fn name_of(key: &str) -> Name {
    redactor().names.of(key)
}

#[test]
fn secrets_are_known_by_whole_words() {
    for key in [
        "password",
        "PASSWORD",
        "Password1",
        "db_password",
        "dbPassword",
        "passWord",
        "pass_word",
        "pass",
        "DB_PASS",
        "smtpPass",
        "api_key",
        "apiKey",
        "API-KEY",
        "X-Api-Key",
        "apikey",
        "APIKEY",
        "APIKey",
        "accessToken",
        "access_token",
        "APItoken",
        "Authorization",
        "HTTPAuthorization",
        "proxy-authorization",
        "client_secret",
        "secrets",
        "credential",
        "aws credentials",
        "Set-Cookie",
        "privateKey",
        "connection_string",
        "ConnectionString",
    ] {
        assert_eq!(name_of(key), Name::Secret, "{key}");
    }
    for key in [
        "token",
        "token.value",
        "token_count",
        "auth",
        "auth_method",
        "authentication",
        "oauth2token",
        "signature",
        "boarding_pass",
        "password_length",
        "secretName",
        "cookie_consent",
    ] {
        assert_eq!(name_of(key), Name::Ambiguous, "{key}");
    }
    for key in ["key", "issue_key", "keyPoints"] {
        assert_eq!(name_of(key), Name::Key, "{key}");
    }
    for key in [
        "",
        "max_tokens",
        "tokens",
        "maxTokens",
        "keyboard",
        "monkey",
        "keys",
        "turkey",
        "author",
        "authors",
        "authority",
        "secretary",
        "tokenizer",
        "compass",
        "session_id",
        "passenger",
    ] {
        assert_eq!(name_of(key), Name::Plain, "{key}");
    }
}

#[test]
fn listed_words_are_the_operators_to_choose() {
    let settings = Redaction {
        enabled: true,
        words: vec!["Social-Security".into(), "PIN".into(), "token".into()],
    };
    let redactor = Redactor::new(&settings).unwrap();
    for (key, want) in [
        ("social_security", Name::Secret),
        ("socialSecurityNumber", Name::Secret),
        ("social", Name::Plain),
        ("pin", Name::Secret),
        ("pin_length", Name::Secret),
        ("spin", Name::Plain),
        ("password", Name::Plain),
        ("token", Name::Secret),
        ("token_count", Name::Secret),
        ("auth", Name::Ambiguous),
    ] {
        assert_eq!(redactor.names.of(key), want, "{key}");
    }
    let off = Redaction {
        enabled: false,
        ..settings
    };
    assert!(Redactor::new(&off).is_none());
}

/// Parameters of tool calls as agents make them, with the secret between « and », which is hidden.
#[rustfmt::skip]
const HIDDEN: &[&str] = &[
    // By name.
    r#"{"password":«"x"»}"#,
    r#"{"pass":«"hunter2"»}"#,
    r#"{"db":{"user":"app","pass":«"hunter2"»}}"#,
    r#"{"connection_string":«"Server=db;User=app;Password=hunter2"»}"#,
    r#"{"api_key":«"abc"»,"q":"boots"}"#,
    r#"{"headers":{"Authorization":«"Bearer abc"»,"Accept":"text/html"}}"#,
    r#"{"env":[{"client_secret":«null»}]}"#,
    r#"{"cvv":«123»,"amount":10}"#,
    r#"{"refreshToken":«"1//0abc"»}"#,
    r#"{"credentials":«{"user":"a","x":1}»}"#,
    // By name and value.
    r#"{"key":«"sk-proj-4fKq2LmN8vRt0XyZ"»}"#,
    r#"{"token":«"ghp_16C7e42F292c6912E7710c838347Ae178B4a"»}"#,
    r#"{"slack_token":«"xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"»}"#,
    r#"{"aws_access_key_id":«"AKIAIOSFODNN7EXAMPLE"»}"#,
    r#"{"id_token_hint":«"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"»}"#,
    r#"{"signature":«"5d41402abc4b2a76b9719d911017c592"»}"#,
    r#"{"auth":«"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="»}"#,
    r#"{"auth":{"type":"bearer","token":«"9f86d081884c7d659a2feaa0c55ad015"»}}"#,
    r#"{"token":«"550e8400-e29b-41d4-a716-446655440000"»}"#,
    r#"{"tokens":[],"token":[«"a3f5c9e1b7d24680fedc"»,"none"]}"#,
    r#"{"key":«"-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----"»}"#,
    r#"{"storage_key":«"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE4KEY+x"»}"#,
    // Within texts that are JSON.
    r#"{"arguments":«"{\"api_key\":\"[redacted]\",\"q\":1}"»}"#,
    r#"{"body":«" [ {\"user\":\"a\", \"password\":\"[redacted]\"} ]"»}"#,
    r#"{"request":«"{\"arguments\":\"{\\\"pass\\\":\\\"[redacted]\\\"}\"}"»}"#,
    // In pairs.
    r#"{"headers":[{"name":"Authorization","value":«"Bearer abc"»},{"name":"Accept","value":"a"}]}"#,
    r#"{"value":«"hunter2"»,"name":"DB_PASSWORD"}"#,
    r#"{"env":[{"Name":"API_KEY","Value":«"abc"»}]}"#,
    r#"{"form":[{"key":"password","value":«"hunter2"»}]}"#,
    r#"{"vars":[{"key":"token","value":«"ghp_16C7e42F292c6912E7710c838347Ae178B4a"»}]}"#,
    r#"{"headers":[["Authorization",«"Bearer 9f86d081884c7d65"»],["Accept","a"]]}"#,
    // In URLs.
    r#"{"dsn":«"postgres://app:[redacted]@db:5432/shop"»}"#,
    r#"{"cmd":«"psql redis://:[redacted]@cache/0 -c x"»}"#,
    r#"{"remote":«"https://[redacted]@github.com/a/b"»}"#,
    r#"{"url":«"https://api.example/v1?q=a&access_token=[redacted]&page=2"»}"#,
    r#"{"urls":[«"https://a:[redacted]@one/ and https://b:[redacted]@two/"»]}"#,
];

/// Parameters that have nothing to hide.
#[rustfmt::skip]
const CLEAR: &[&str] = &[
    r#"{"key":"Enter"}"#,
    r#"{"key":"ctrl+shift+ArrowDown"}"#,
    r#"{"issue_key":"PROJ-1234"}"#,
    r#"{"key":"uploads/2024/10/Quarterly-Report-Final-v2.pdf"}"#,
    r#"{"key":"customer20240115001"}"#,
    r#"{"key":"550e8400-e29b-41d4-a716-446655440000"}"#,
    r#"{"key_points":["It is cheap","It fits"]}"#,
    r#"{"primary_key":"id","sort_key":"created_at"}"#,
    r#"{"key":-1.50e3}"#,
    r#"{"cache_key":"user:42:profile"}"#,
    r#"{"nextPageToken":"eyJvZmZzZXQiOjEwMH0=","page_token":"eyJvZmZzZXQiOjIwMH0="}"#,
    r#"{"idempotency_key":"a1b2c3d4e5f60718293a4b5c"}"#,
    r#"{"public_key":"AAAAB3NzaC1yc2EAAAADAQABAAABgQC7"}"#,
    r#"{"keys":["a","b"],"keyboard":"qwerty"}"#,
    r#"{"token_count":1200,"max_tokens":5}"#,
    r#"{"token":"comma"}"#,
    r#"{"token":"internationalization"}"#,
    r#"{"token":null,"token_type":"bearer"}"#,
    r#"{"token":"GoToTheNextTabAndThenBack"}"#,
    r#"{"signature":"fn add(a: u32, b: u32) -> u32"}"#,
    r#"{"signature":"Kind regards,\nAda"}"#,
    r#"{"auth_method":"oauth2","authentication":"none"}"#,
    r#"{"auth":{"type":"basic","user":"ada"}}"#,
    r#"{"oauth_provider":"google"}"#,
    r#"{"authors":["ada"],"authority":"city"}"#,
    r#"{"pass_rate":0.93,"boarding_pass":"Gate B"}"#,
    r#"{"password_length":12,"password_policy":"twelve characters"}"#,
    r#"{"secret_name":"prod/db","cookie_consent":true}"#,
    r#"{"query":"what is a password?"}"#,
    r#"["password","token"]"#,
    r#"{"fields":["password","api_key"]}"#,
    r#"{"arguments":"{\"key\": \"Enter\"}"}"#,
    r#"{"text":"{not json, password: x}"}"#,
    r#"{"name":"password","type":"string"}"#,
    r#"{"name":"Accept","value":"text/html"}"#,
    r#"{"key":"Enter","value":"x"}"#,
    r#"{"url":"https://example.com:8080/@ada?page=2#a:b@c"}"#,
    r#"{"remote":"git@github.com:a/b.git","mail":"mailto:ada@example.com"}"#,
    r#"{"url":"https://ada@example.com/","s":"ssh://git@host/x"}"#,
    r#"{"at":"2024-01-15T10:30:00Z","key":"20240115T103000Z"}"#,
    r#"{}"#,
];

#[test]
fn secrets_are_hidden_and_what_only_has_their_names_is_not() {
    assert!(HIDDEN.len() >= 30 && CLEAR.len() >= 30);
    let redactor = redactor();
    for case in HIDDEN {
        let want = hidden(case);
        let sent = sent(case);
        assert_eq!(
            redactor.redact_json(&sent).as_deref(),
            Some(&*want),
            "{sent}"
        );
        let again = redactor.redact_json(&want);
        assert_eq!(again.unwrap_or_else(|| want.clone()), want, "again");
        as_struct(&redactor, &sent, &want);
    }
    for case in CLEAR {
        assert_eq!(redactor.redact_json(case), None, "{case}");
        as_struct(&redactor, case, case);
    }
}

/// `sent` as a protobuf value is redacted as the text is.
fn as_struct(redactor: &Redactor, sent: &str, want: &str) {
    let mut value = to_proto(&serde_json::from_str(sent).unwrap());
    redactor.redact_value(&mut value, Name::Plain, NESTED);
    assert_eq!(
        value,
        to_proto(&serde_json::from_str(want).unwrap()),
        "{sent}"
    );
}

/// A case after redaction: what is marked is `[redacted]`, unless it shows that in place of the secret part of a text.
fn hidden(case: &str) -> String {
    parts(case, |marked| match marked.contains(REDACTED) {
        true => marked.to_owned(),
        false => format!("\"{REDACTED}\""),
    })
}

/// A case before redaction.
fn sent(case: &str) -> String {
    parts(case, |marked| marked.replace(REDACTED, "9f86d081884c7d65"))
}

fn parts(case: &str, marked: impl Fn(&str) -> String) -> String {
    let mut pieces = case.split(['«', '»']);
    let mut out = pieces.next().unwrap().to_owned();
    while let (Some(piece), Some(rest)) = (pieces.next(), pieces.next()) {
        out += &marked(piece);
        out += rest;
    }
    out
}

#[test]
fn json_keeps_every_byte_but_the_secrets() {
    let redactor = redactor();
    for (text, want) in [
        (
            r#" { "n" : 12345678901234567890 , "pass" :  -1.50e3 ,"b":[ ] } "#,
            Some(r#" { "n" : 12345678901234567890 , "pass" :  "[redacted]" ,"b":[ ] } "#),
        ),
        (
            r#"{"a":[{"secret":{"password":"]}"},"x":1},{"jwt":null}]}"#,
            Some(r#"{"a":[{"secret":"[redacted]","x":1},{"jwt":"[redacted]"}]}"#),
        ),
        (
            r#"{"pass\u0077ord":"a\"b","p":"\u0041"}"#,
            Some(r#"{"pass\u0077ord":"[redacted]","p":"\u0041"}"#),
        ),
        (
            r#"{"otp":"a","otp":[1,[2]],"x":"\\"}"#,
            Some(r#"{"otp":"[redacted]","otp":"[redacted]","x":"\\"}"#),
        ),
        (
            "{\"pwd\"\n:\ttrue\n}",
            Some("{\"pwd\"\n:\t\"[redacted]\"\n}"),
        ),
    ] {
        assert_eq!(redactor.redact_json(text).as_deref(), want, "{text}");
    }
}

#[test]
fn texts_within_texts_are_looked_into_within_bounds() {
    let redactor = redactor();
    let mut text = r#"{"password":"hunter2"}"#.to_owned();
    for level in 0..8 {
        let redacted = redactor.redact_json(&text).unwrap_or_default();
        let is_hidden = !redacted.is_empty() && !redacted.contains("hunter2");
        assert_eq!(is_hidden, level <= NESTED, "{level}: {redacted}");
        text = json!({ "a": text }).to_string();
    }
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert_eq!(
        redactor.redact_json(&json!({ "a": deep }).to_string()),
        None
    );
}

/// What redaction means, on a parsed value.
fn reference(redactor: &Redactor, value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                if redactor.names.of(key) == Name::Secret {
                    *value = json!("[redacted]");
                } else {
                    reference(redactor, value);
                }
            }
        }
        serde_json::Value::Array(values) => {
            for value in values {
                reference(redactor, value);
            }
        }
        _ => {}
    }
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("api_key".to_owned()),
        Just("to\"ken".to_owned()),
        Just("Password\n".to_owned()),
        Just("max_tokens".to_owned()),
        "[a-c{}\\[\\]:,\"\\\\é]{0,4}",
    ]
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        "[a-c{}\\[\\]:,\"\\\\\\PC]{0,6}".prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|list| json!(list)),
            prop::collection::btree_map(any_key(), inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

/// The same value as a protobuf one.
fn to_proto(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap()),
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(list) => Kind::ListValue(prost_types::ListValue {
            values: list.iter().map(to_proto).collect(),
        }),
        Json::Object(map) => Kind::StructValue(Struct {
            fields: map.iter().map(|(k, v)| (k.clone(), to_proto(v))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

proptest! {
    #[test]
    fn text_and_structs_are_redacted_as_the_parsed_value_is(value in any_json(), pretty: bool) {
        let redactor = redactor();
        let text = if pretty {
            serde_json::to_string_pretty(&value).unwrap()
        } else {
            value.to_string()
        };
        let mut want = value.clone();
        reference(&redactor, &mut want);

        let redacted = redactor.redact_json(&text);
        let got = redacted.as_deref().unwrap_or(&text);
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(got).unwrap(), &want);
        // The serialiser is deterministic, so equal bytes elsewhere means an equal text.
        let want_text = if pretty {
            serde_json::to_string_pretty(&want).unwrap()
        } else {
            want.to_string()
        };
        prop_assert_eq!(got, want_text);

        let mut proto = to_proto(&value);
        redactor.redact_value(&mut proto, Name::Plain, NESTED);
        prop_assert_eq!(proto, to_proto(&want));
    }
}
