//! What a client sends over a WebSocket: one JSON object in a text message.

use serde_json::{Map, Value};

use crate::{
    event::Position,
    reason::{Reason, Refusal},
};

/// The most characters of a wrong value that an error shows.
const SHOWN: usize = 64;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientMessage {
    /// A new credential.
    Authenticate(String),
    /// The client has processed everything up to here.
    Ack(Position),
}

impl ClientMessage {
    /// Parses one text message. Unknown fields are ignored.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, with the field, its value and what is expected.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let Ok(fields) = serde_json::from_str::<Map<String, Value>>(text) else {
            let expected = r#"the message is not a JSON object: expected one such as {"type":"ack","epoch":"00000000000000ab","offset":42}"#;
            return Err(Refusal::new(Reason::InvalidRequest, expected));
        };
        match fields.get("type").and_then(Value::as_str) {
            Some("authenticate") => match fields.get("token") {
                Some(Value::String(token)) => Ok(Self::Authenticate(token.clone())),
                // Its value may be a credential, which no error repeats.
                Some(_) => Err(refused("`token` is not a text: expected a token")),
                None => Err(refused("`token` is missing: expected a token")),
            },
            Some("ack") => ack(&fields).map(Self::Ack),
            _ => Err(wrong(
                &fields,
                "type",
                r#"is not known: expected "ack" or "authenticate""#,
            )),
        }
    }
}

fn ack(fields: &Map<String, Value>) -> Result<Position, Refusal> {
    let position = |epoch: &str, offset: u64| format!("{epoch}-{offset}").parse().ok();
    let epoch = fields.get("epoch").and_then(Value::as_str);
    let Some(epoch) = epoch.filter(|epoch| position(epoch, 0).is_some()) else {
        let expected = "is not an epoch: expected that of a frame, 16 hexadecimal digits as a text";
        return Err(wrong(fields, "epoch", expected));
    };
    let offset = fields.get("offset").and_then(Value::as_u64);
    offset.and_then(|offset| position(epoch, offset)).ok_or_else(|| {
        let expected = "is not an offset: expected that of a frame, a whole number from 0 to 9007199254740991 without quotes or a fraction";
        wrong(fields, "offset", expected)
    })
}

/// The refusal of a field: its name, its value, and `expected`.
fn wrong(fields: &Map<String, Value>, name: &str, expected: &str) -> Refusal {
    let Some(value) = fields.get(name) else {
        let (_, expected) = expected.split_once(": ").unwrap_or(("", expected));
        return refused(&format!("`{name}` is missing: {expected}"));
    };
    let value = value.to_string();
    let shown = match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value,
    };
    refused(&format!("`{name}`: {shown} {expected}"))
}

fn refused(message: &str) -> Refusal {
    Refusal::new(Reason::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Offset};

    fn parsed(text: &str) -> Result<ClientMessage, String> {
        ClientMessage::parse(text).map_err(|refusal| refusal.message)
    }

    #[test]
    fn messages_of_a_client() {
        assert_eq!(
            parsed(r#"{"type":"authenticate","token":"t","later":{"a":[1]}}"#),
            Ok(ClientMessage::Authenticate("t".to_owned()))
        );
        assert_eq!(
            parsed(r#"{"type":"ack","epoch":"00000000000000ab","offset":7}"#),
            Ok(ClientMessage::Ack(Position::new(
                Epoch::new(0xab),
                Offset(7)
            )))
        );
    }

    #[test]
    fn errors_name_the_field_its_value_and_what_is_expected() {
        let ack = |offset: &str| {
            format!(r#"{{"type":"ack","epoch":"00000000000000ab","offset":{offset}}}"#)
        };
        let offset = |shown: &str| {
            format!(
                "`offset`: {shown} is not an offset: expected that of a frame, a whole number from 0 to \
                 9007199254740991 without quotes or a fraction"
            )
        };
        let long = format!("\"{}\"", "é".repeat(100));
        let cases = [
            (ack("\"7\""), offset("\"7\"")),
            (ack("1.0"), offset("1.0")),
            (ack("-1"), offset("-1")),
            (ack("9007199254740992"), offset("9007199254740992")),
            (ack("null"), offset("null")),
            (ack(&long), offset(&format!("\"{}…", "é".repeat(63)))),
            (
                r#"{"type":"ack","epoch":"00000000000000ab"}"#.to_owned(),
                "`offset` is missing: expected that of a frame, a whole number from 0 to 9007199254740991 without \
                 quotes or a fraction"
                    .to_owned(),
            ),
            (
                r#"{"type":"ack","epoch":"x","offset":1}"#.to_owned(),
                "`epoch`: \"x\" is not an epoch: expected that of a frame, 16 hexadecimal digits as a text".to_owned(),
            ),
            (
                r#"{"type":"ack","offset":1}"#.to_owned(),
                "`epoch` is missing: expected that of a frame, 16 hexadecimal digits as a text".to_owned(),
            ),
            (
                r#"{"type":"authenticate"}"#.to_owned(),
                "`token` is missing: expected a token".to_owned(),
            ),
            (
                r#"{"type":"authenticate","token":["secret"]}"#.to_owned(),
                "`token` is not a text: expected a token".to_owned(),
            ),
            (
                r#"{"type":1}"#.to_owned(),
                "`type`: 1 is not known: expected \"ack\" or \"authenticate\"".to_owned(),
            ),
            (
                "{}".to_owned(),
                "`type` is missing: expected \"ack\" or \"authenticate\"".to_owned(),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parsed(&text), Err(want), "{text}");
        }
        for text in ["", "{", "7", "[]", r#"["ack",null,"00000000000000ab",7]"#] {
            let error = parsed(text).unwrap_err();
            assert!(
                error.starts_with("the message is not a JSON object: expected one such as {"),
                "{text}: {error}"
            );
        }
    }
}
