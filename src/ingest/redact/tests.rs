use proptest::prelude::*;
use serde_json::json;

use super::*;

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

#[test]
fn secrets_are_known_by_whole_words() {
    let redactor = redactor();
    for key in [
        "password",
        "PASSWORD",
        "Password1",
        "db_password",
        "dbPassword",
        "passWord",
        "pass_word",
        "api_key",
        "apiKey",
        "API-KEY",
        "X-Api-Key",
        "apikey",
        "APIKEY",
        "APIKey",
        "key",
        "token",
        "accessToken",
        "access_token",
        "APItoken",
        "token.value",
        "auth",
        "Authorization",
        "HTTPAuthorization",
        "proxy-authorization",
        "client_secret",
        "secrets",
        "credential",
        "aws credentials",
        "Set-Cookie",
        "privateKey",
        "signature",
        "oauth2token",
    ] {
        assert!(redactor.is_secret(key), "{key}");
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
        assert!(!redactor.is_secret(key), "{key}");
    }
}

#[test]
fn listed_words_are_the_operators_to_choose() {
    let settings = Redaction {
        enabled: true,
        words: vec!["Social-Security".into(), "PIN".into()],
    };
    let redactor = Redactor::new(&settings).unwrap();
    for (key, want) in [
        ("social_security", true),
        ("socialSecurityNumber", true),
        ("social", false),
        ("pin", true),
        ("spin", false),
        ("password", false),
    ] {
        assert_eq!(redactor.is_secret(key), want, "{key}");
    }
    let off = Redaction {
        enabled: false,
        ..settings
    };
    assert!(Redactor::new(&off).is_none());
}

#[test]
fn json_keeps_every_byte_but_the_secrets() {
    let redactor = redactor();
    for (text, want) in [
        (r#"{"q":"token","max_tokens":5}"#, None),
        (r#"["password","token"]"#, None),
        (r#"{}"#, None),
        (r#"{"token":"x"}"#, Some(r#"{"token":"[redacted]"}"#)),
        (
            r#" { "n" : 12345678901234567890 , "key" :  -1.50e3 ,"b":[ ] } "#,
            Some(r#" { "n" : 12345678901234567890 , "key" :  "[redacted]" ,"b":[ ] } "#),
        ),
        (
            r#"{"a":[{"secret":{"password":"]}"},"x":1},{"token":null}]}"#,
            Some(r#"{"a":[{"secret":"[redacted]","x":1},{"token":"[redacted]"}]}"#),
        ),
        (
            r#"{"pass\u0077ord":"a\"b","p":"\u0041"}"#,
            Some(r#"{"pass\u0077ord":"[redacted]","p":"\u0041"}"#),
        ),
        (
            r#"{"token":"a","token":[1,[2]],"x":"\\"}"#,
            Some(r#"{"token":"[redacted]","token":"[redacted]","x":"\\"}"#),
        ),
        (
            "{\"key\"\n:\ttrue\n}",
            Some("{\"key\"\n:\t\"[redacted]\"\n}"),
        ),
    ] {
        assert_eq!(redactor.redact_json(text).as_deref(), want, "{text}");
    }
}

/// What redaction means, on a parsed value.
fn reference(redactor: &Redactor, value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                if redactor.is_secret(key) {
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
        redactor.redact_value(&mut proto);
        prop_assert_eq!(proto, to_proto(&want));
    }
}
