use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::access::{Grant, Scope, mint};

const NOW: u64 = 1_800_000_000;

fn config() -> Config {
    Config {
        issuer: "platform".into(),
        secret: b"0123456789abcdef0123456789abcdef".to_vec(),
    }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(NOW * 1000))
}

fn authenticator() -> Authenticator {
    Authenticator::new(&config(), clock())
}

fn good() -> Value {
    json!({
        "iss": "platform", "aud": "emitter", "sub": "u1", "exp": NOW + 60,
        "tenant": "acme", "scope": "emit future subscribe", "tier": "pro",
        "users": ["u1", "u2"], "jti": "j1", "nbf": NOW, "extra": {"ignored": true},
    })
}

fn sign(header: &Header, claims: &Value) -> String {
    let key = EncodingKey::from_secret(&config().secret);
    jsonwebtoken::encode(header, claims, &key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(&Header::new(Algorithm::HS256), claims)
}

/// The good claims with `changes` on top; null takes a claim away.
fn with(changes: &Value) -> Value {
    let mut claims = good();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(key),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(key.clone(), value.clone()),
        };
    }
    claims
}

#[test]
fn a_good_token_yields_its_principal() {
    let principal = authenticator().verify(&hs256(&good())).unwrap();
    assert_eq!(principal.tenant.as_str(), "acme");
    assert_eq!(principal.subject.as_str(), "u1");
    assert!(principal.scopes.iter().eq(&[Scope::Emit, Scope::Subscribe]));
    assert_eq!(principal.tier.as_deref(), Some("pro"));
    assert_eq!(
        principal.expires_at,
        Timestamp::from_millis((NOW + 60) * 1000)
    );
    let users: Vec<&str> = principal
        .users
        .iter()
        .flatten()
        .map(|u| u.as_str())
        .collect();
    assert_eq!(users, ["u1", "u2"]);
}

#[test]
fn what_may_be_absent_has_a_default() {
    let token = hs256(&json!({"iss": "platform", "aud": "emitter", "sub": "u1", "exp": NOW + 1}));
    let principal = authenticator().verify(&token).unwrap();
    assert_eq!(principal.tenant.as_str(), "default");
    assert!(principal.scopes.is_empty());
    assert_eq!((&principal.users, &principal.tier), (&None, &None));
}

#[test]
fn each_claim_is_checked() {
    let ok = None;
    let no = Some(Reason::Unauthenticated);
    let expired = Some(Reason::CredentialExpired);
    let long = "é".repeat(129);
    let cases = [
        (json!({}), ok),
        (json!({"iss": null}), no),
        (json!({"iss": "other"}), no),
        (json!({"iss": ["platform"]}), no),
        (json!({"iss": 1}), no),
        (json!({"aud": null}), no),
        (json!({"aud": "other"}), no),
        (json!({"aud": []}), no),
        (json!({"aud": 1}), no),
        (json!({"aud": ["other", "emitter"]}), ok),
        (json!({"sub": null}), no),
        (json!({"sub": ""}), no),
        (json!({"sub": 7}), no),
        (json!({"sub": long}), no),
        (json!({"sub": "a\u{0}b"}), no),
        (json!({"sub": "é".repeat(128)}), ok),
        (json!({"exp": null}), no),
        (json!({"exp": "soon"}), no),
        (json!({"exp": (NOW + 60).to_string()}), no),
        (json!({"exp": NOW + 1}), ok),
        (json!({"exp": NOW as f64 + 0.5}), ok),
        (json!({"exp": 1e300}), no),
        (json!({"exp": NOW}), ok),
        (json!({"exp": NOW - 59}), ok),
        (json!({"exp": NOW - 60}), expired),
        (json!({"exp": 0}), expired),
        (json!({"exp": -1}), expired),
        (json!({"nbf": null}), ok),
        (json!({"nbf": NOW + 60}), ok),
        (json!({"nbf": NOW + 61}), no),
        (json!({"iat": NOW + 60}), ok),
        (json!({"iat": NOW + 61}), no),
        (json!({"iat": "now"}), no),
        (json!({"nbf": -5}), ok),
        (json!({"nbf": "now"}), no),
        (json!({"nbf": NOW + 3600, "exp": NOW - 3600}), no),
        (json!({"tenant": ""}), no),
        (json!({"tenant": 3}), no),
        (json!({"users": []}), ok),
        (json!({"users": [""]}), no),
        (json!({"users": "u1"}), no),
        (json!({"scope": ""}), ok),
        (json!({"scope": ["emit"]}), ok),
        (json!({"scope": ["emit", 1]}), no),
        (json!({"scope": {"emit": true}}), no),
        (json!({"tier": 1}), no),
        (json!({"jti": null}), ok),
    ];
    let authenticator = authenticator();
    for (changes, want) in cases {
        let token = hs256(&with(&changes));
        let got = authenticator.verify(&token).err().map(|r| r.reason);
        assert_eq!(got, want, "{changes}");
    }
}

/// For a token that the issuer signed, a person who reads the message can mend it.
#[test]
fn a_refusal_of_a_signed_token_names_the_claim_its_value_and_what_is_expected() {
    let times = |claim| {
        format!(
            "the claim `{claim}` is {}: expected a time up to now, which is {NOW}, with 60 s of leeway",
            NOW + 3600
        )
    };
    let cases = [
        (
            json!({"aud": "other"}),
            "the claim `aud` is \"other\": expected `emitter`, or a list with it".to_owned(),
        ),
        (
            json!({"aud": ["a", "b"]}),
            "the claim `aud` is [\"a\",\"b\"]: expected `emitter`, or a list with it".to_owned(),
        ),
        (
            json!({"iss": "elsewhere"}),
            "the claim `iss` is \"elsewhere\": expected `platform`".to_owned(),
        ),
        (
            json!({"iss": null}),
            "the claim `iss` is missing: expected `platform`".to_owned(),
        ),
        (json!({"nbf": NOW + 3600}), times("nbf")),
        (json!({"iat": NOW + 3600}), times("iat")),
        (
            json!({"exp": null}),
            "the claim `exp` is missing: expected seconds since 1970".to_owned(),
        ),
        (
            json!({"exp": "soon"}),
            "the claim `exp` is \"soon\": expected seconds since 1970, as a number up to the year 9999"
                .to_owned(),
        ),
        (
            json!({"scope": 7}),
            "the claim `scope` is 7: expected a text with spaces between the scopes, or a list of texts"
                .to_owned(),
        ),
        (
            json!({"users": "u1"}),
            "the claim `users` is \"u1\": expected a list of user ids".to_owned(),
        ),
        (
            json!({"tier": 1}),
            "the claim `tier` is 1: expected a text".to_owned(),
        ),
        // A long value is cut.
        (
            json!({"iss": "é".repeat(1000)}),
            format!("the claim `iss` is \"{}…: expected `platform`", "é".repeat(63)),
        ),
    ];
    for (changes, want) in cases {
        let token = hs256(&with(&changes));
        let refusal = authenticator().verify(&token).unwrap_err();
        assert_eq!(refusal.message, want, "{changes}");
    }
}

#[test]
fn an_expired_token_says_since_when() {
    let refusal = authenticator()
        .verify(&hs256(&with(&json!({"exp": NOW - 3600}))))
        .unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.message.as_str()),
        (
            Reason::CredentialExpired,
            "the credential has expired: `exp` is 2027-01-15T07:00:00.000Z, and it is 2027-01-15T08:00:00.000Z now"
        )
    );
}

#[test]
fn a_token_of_more_than_8_kib_is_refused_by_its_length() {
    let refusal = authenticator()
        .verify(&"a".repeat(TOKEN_BYTES + 1))
        .unwrap_err();
    assert_eq!(
        refusal.message,
        "the token has 8193 bytes: expected at most 8192"
    );
}

/// As around the token of an `Authorization` header.
#[test]
fn white_space_around_a_token_is_ignored() {
    let token = format!(" {}\r\n", hs256(&good()));
    authenticator().verify(&token).unwrap();
}

#[test]
fn only_hs256_under_our_secret_is_believed() {
    let claims = good();
    let good = hs256(&claims);
    let parts: Vec<&str> = good.split('.').collect();
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let relabelled = |alg: &str| {
        let head = part(json!({"alg": alg, "typ": "JWT"}));
        [&head, parts[1], parts[2]].join(".")
    };
    let other_key = EncodingKey::from_secret(b"another secret of thirty-two byte");
    let other = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &other_key).unwrap();
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".into()]);
    let forged = part(with(&json!({"sub": "root"})));
    let none = part(json!({"alg": "none"}));
    let cases = [
        ("HS384", sign(&Header::new(Algorithm::HS384), &claims)),
        ("HS512", sign(&Header::new(Algorithm::HS512), &claims)),
        ("crit", sign(&critical, &claims)),
        ("RS256 header over an HMAC", relabelled("RS256")),
        ("EdDSA header over an HMAC", relabelled("EdDSA")),
        ("none, with the signature", relabelled("none")),
        ("none, without", [&none, parts[1], ""].join(".")),
        ("no signature", [parts[0], parts[1], ""].join(".")),
        ("two parts", [parts[0], parts[1]].join(".")),
        ("four parts", [&good, "x"].join(".")),
        ("other claims", [parts[0], &forged, parts[2]].join(".")),
        ("another secret", other),
        ("empty", String::new()),
        ("dots", "..".into()),
        ("garbage", "\u{0}é%.$$.==".into()),
    ];
    let authenticator = authenticator();
    authenticator.verify(&good).unwrap();
    for (name, token) in cases {
        let refusal = authenticator.verify(&token).unwrap_err();
        assert_eq!(refusal.reason, Reason::Unauthenticated, "{name}");
        // Nothing in it is believed, so nothing of it is shown.
        let want = match name {
            "crit" => "the header `crit` names extensions: expected none",
            _ => "the credential is not valid",
        };
        assert_eq!(refusal.message, want, "{name}");
    }
}

#[test]
fn a_remembered_token_still_expires() {
    let clock = clock();
    let authenticator = Authenticator::new(&config(), clock.clone());
    let token = hs256(&good());
    let first = authenticator.verify(&token).unwrap();
    let second = authenticator.verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "verified twice");
    clock.advance(Duration::from_secs(119));
    authenticator.verify(&token).unwrap();
    clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        let refusal = authenticator.verify(&token).unwrap_err();
        assert_eq!(refusal.reason, Reason::CredentialExpired);
    }
}

#[test]
fn what_is_minted_verifies() {
    let grant = Grant {
        tenant: Some("acme".into()),
        users: Some(vec!["u2".into()]),
        tier: Some("pro".into()),
        not_before: Some(Timestamp::from_millis(NOW * 1000)),
        token_id: Some("j1".into()),
        ..Grant::new(
            "svc",
            [Scope::Operate, Scope::Emit],
            Timestamp::from_millis((NOW + 5) * 1000),
        )
    };
    let principal = authenticator()
        .verify(&mint(&config(), &grant).unwrap())
        .unwrap();
    assert_eq!(principal.tenant.as_str(), "acme");
    assert_eq!(principal.subject.as_str(), "svc");
    assert_eq!(principal.scopes, grant.scopes);
    assert_eq!(principal.users.as_ref().unwrap().len(), 1);
    assert_eq!(principal.tier, grant.tier);
    assert_eq!(principal.expires_at, grant.expires_at);
}

#[test]
fn bearer_takes_the_token_whatever_the_case_of_the_scheme() {
    let cases = [
        ("Bearer abc", Some("abc")),
        ("bearer abc", Some("abc")),
        ("BEARER   abc ", Some("abc")),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
    ];
    for (header, want) in cases {
        assert_eq!(bearer(header), want, "{header:?}");
    }
}

#[test]
fn two_authorization_headers_are_refused_whichever_is_good() {
    let grant = Grant::new(
        "svc",
        [Scope::Emit],
        Timestamp::from_millis((NOW + 5) * 1000),
    );
    let good = format!("Bearer {}", mint(&config(), &grant).unwrap());
    for lines in [
        [good.as_str(), good.as_str()],
        [good.as_str(), "Bearer x"],
        ["Basic dTpw", good.as_str()],
    ] {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, line.parse().unwrap());
        }
        let late = authenticator().admit_late(&headers, Duration::from_secs(5));
        for admitted in [authenticator().admit(&headers), late] {
            let refusal = admitted.unwrap_err();
            assert_eq!(refusal.reason, Reason::Unauthenticated, "{lines:?}");
        }
    }
}

#[test]
fn a_config_does_not_print_its_secret() {
    let text = format!("{:?}", config());
    assert!(text.contains("[set]") && !text.contains("0123"), "{text}");
}
