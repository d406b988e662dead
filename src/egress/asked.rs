//! What a reader asked for, in either of its two spellings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use axum::extract::Query;
use http::{HeaderName, Uri};

use crate::{
    event::{ClientId, Kind, Position, RunId, ThreadId, custom_name_problem},
    fanout::{FILTER_TYPES, Filter, Start},
    proto::v1::{StartFrom, SubscribeRequest, subscribe_request},
    reason::{Reason, Refusal, Violation},
};

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At a place in the stream.
    At(Start),
    /// After what this client acknowledged last.
    Acked(ClientId),
}

/// Who a reader is, where it begins, and what it wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The client, if it names itself.
    pub(super) client_id: Option<ClientId>,
    /// Where it begins.
    pub(super) begin: Begin,
    /// What it is sent.
    pub(super) filter: Filter,
    /// Whether it may be sent joined deltas.
    pub(super) join: bool,
}

/// Where a reader of server-sent events that comes back says what it has.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The parameters of a stream's URL. Others are ignored.
const PARAMETERS: [&str; 7] = [
    "after",
    "from",
    "thread_id",
    "run_id",
    "types",
    "join",
    "client_id",
];

impl Asked {
    /// Reads the query of a stream's URL. A `last_event_id` beats where the URL begins: a reader that comes back sends
    /// it with the URL that it began with.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, with the parameters that are wrong.
    pub(super) fn in_query(uri: &Uri, last_event_id: Option<&str>) -> Result<Self, Refusal> {
        let mut problems = Problems::default();
        let mut given = parameters(uri, &mut problems);
        let from = match (last_event_id, given.remove("after"), given.remove("from")) {
            (Some(last), _, _) => {
                problems.check(LAST_EVENT_ID.as_str(), last.parse().map(From::after))
            }
            (None, None, None) => Some(From::Place(Start::Head)),
            (None, Some(after), None) => problems.check("after", after.parse().map(From::after)),
            (None, None, Some(from)) => problems.check("from", from_name(&from)),
            (None, Some(_), Some(_)) => problems.add("from", "cannot be given beside `after`"),
        };
        let client_id = problems.optional("client_id", given.remove("client_id"), ClientId::new);
        let join = given.remove("join").map(|join| match join.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be `true` or `false`"),
        });
        let types = given.remove("types");
        let types = types
            .as_deref()
            .map(|types| types.split(',').collect::<Vec<_>>());
        let filter = Filter {
            thread_id: problems.optional("thread_id", given.remove("thread_id"), ThreadId::new),
            run_id: problems.optional("run_id", given.remove("run_id"), RunId::new),
            types: types.and_then(|types| problems.types(&types)),
        };
        let join = join
            .and_then(|join| problems.check("join", join))
            .unwrap_or(true);
        let begin = problems.begin(from, client_id.as_ref());
        problems.none(begin.map(|begin| Self {
            client_id,
            begin,
            filter,
            join,
        }))
    }

    /// Reads a request.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, with the fields that are wrong.
    pub(super) fn in_request(request: SubscribeRequest) -> Result<Self, Refusal> {
        let mut problems = Problems::default();
        let from = match request.start {
            None => Some(From::Place(Start::Head)),
            Some(subscribe_request::Start::After(after)) => {
                let after = format!("{}-{}", after.epoch, after.offset);
                problems.check("after", after.parse().map(From::after))
            }
            Some(subscribe_request::Start::From(from)) => problems.check("from", from_code(from)),
        };
        let stated = |text: String| (!text.is_empty()).then_some(text);
        let client_id = problems.optional("client_id", stated(request.client_id), ClientId::new);
        let types: Vec<_> = request.types.iter().map(String::as_str).collect();
        let filter = Filter {
            thread_id: problems.optional("thread_id", stated(request.thread_id), ThreadId::new),
            run_id: problems.optional("run_id", stated(request.run_id), RunId::new),
            types: if types.is_empty() {
                None
            } else {
                problems.types(&types)
            },
        };
        let join = request.join.unwrap_or(true);
        let begin = problems.begin(from, client_id.as_ref());
        problems.none(begin.map(|begin| Self {
            client_id,
            begin,
            filter,
            join,
        }))
    }
}

/// The known parameters of `uri`, percent-decoded.
fn parameters(uri: &Uri, problems: &mut Problems) -> BTreeMap<&'static str, String> {
    let mut given = BTreeMap::new();
    if !uri.query().is_none_or(is_utf8) {
        problems.add::<()>("query", "must be UTF-8, percent-encoded");
        return given;
    }
    let pairs = match Query::<Vec<(String, String)>>::try_from_uri(uri) {
        Ok(Query(pairs)) => pairs,
        Err(_) => {
            problems.add::<()>("query", "cannot be read");
            Vec::new()
        }
    };
    for (name, value) in pairs {
        if let Some(known) = PARAMETERS.into_iter().find(|known| *known == name)
            && given.insert(known, value).is_some()
        {
            problems.add::<()>(known, "is given more than once");
        }
    }
    given
}

/// Whether `query` is UTF-8 once it is percent-decoded. The decoder of queries would replace what is not.
fn is_utf8(query: &str) -> bool {
    let hex = |at: usize| {
        let digits = query.get(at..at + 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    let mut decoded = Vec::with_capacity(query.len());
    let mut rest = query.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        match hex(at + 1).filter(|_| byte == b'%') {
            Some(escaped) => {
                decoded.push(escaped);
                rest.nth(1);
            }
            None => decoded.push(byte),
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// Where a reader asks to begin.
enum From {
    Place(Start),
    Acked,
}

impl From {
    fn after(position: Position) -> Self {
        Self::Place(Start::After(position))
    }
}

fn from_name(from: &str) -> Result<From, &'static str> {
    match from {
        "head" => Ok(From::Place(Start::Head)),
        "oldest" => Ok(From::Place(Start::Oldest)),
        "open" => Ok(From::Place(Start::Open)),
        "acked" => Ok(From::Acked),
        _ => Err("must be `head`, `oldest`, `open` or `acked`"),
    }
}

fn from_code(from: i32) -> Result<From, &'static str> {
    match StartFrom::try_from(from) {
        Ok(StartFrom::Unspecified | StartFrom::Head) => Ok(From::Place(Start::Head)),
        Ok(StartFrom::Oldest) => Ok(From::Place(Start::Oldest)),
        Ok(StartFrom::Open) => Ok(From::Place(Start::Open)),
        Ok(StartFrom::Acked) => Ok(From::Acked),
        Err(_) => Err("is not a known value"),
    }
}

/// What is wrong, gathered so that a caller learns all of it at once.
#[derive(Default)]
struct Problems(Vec<Violation>);

impl Problems {
    fn add<T>(&mut self, field: impl Into<String>, description: impl Display) -> Option<T> {
        self.0.push(Violation {
            field: field.into(),
            description: description.to_string(),
        });
        None
    }

    fn check<T, E: Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_or_else(|problem| self.add(field, problem), Some)
    }

    fn optional<T, E: Display>(
        &mut self,
        field: &str,
        text: Option<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        text.and_then(|text| self.check(field, read(&text)))
    }

    /// What `from` comes to for that client. That of one whose id is wrong is told already.
    fn begin(&mut self, from: Option<From>, client_id: Option<&ClientId>) -> Option<Begin> {
        match (from?, client_id) {
            (From::Place(start), _) => Some(Begin::At(start)),
            (From::Acked, Some(client_id)) => Some(Begin::Acked(client_id.clone())),
            (From::Acked, None) if self.0.iter().any(|told| told.field == "client_id") => None,
            (From::Acked, None) => self.add("client_id", "is required to begin at `acked`"),
        }
    }

    fn types(&mut self, names: &[&str]) -> Option<BTreeSet<String>> {
        if names.len() > FILTER_TYPES {
            return self.add(
                "types",
                format_args!("has more than {FILTER_TYPES} entries"),
            );
        }
        for (n, name) in names.iter().enumerate() {
            let typed = Kind::typed().any(|(_, wire_type)| wire_type == *name);
            if !typed && let Some(problem) = custom_name_problem(name) {
                self.add::<()>(
                    format!("types[{n}]"),
                    format_args!("is no event type: {problem}"),
                );
            }
        }
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn none<T>(self, value: Option<T>) -> Result<T, Refusal> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Refusal::invalid(Reason::InvalidRequest, self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::fixtures::document,
        event::{Epoch, Offset},
        proto::v1,
    };

    fn query(query: &str) -> Result<Asked, Vec<String>> {
        let uri: Uri = format!("/v1/stream{query}").parse().unwrap();
        Asked::in_query(&uri, None).map_err(fields)
    }

    fn fields(refusal: Refusal) -> Vec<String> {
        assert_eq!(refusal.reason, Reason::InvalidRequest);
        refusal
            .violations
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    fn everything_from(start: Start) -> Asked {
        Asked {
            client_id: None,
            begin: Begin::At(start),
            filter: Filter::default(),
            join: true,
        }
    }

    #[test]
    fn the_document_lists_every_parameter() {
        let document = document();
        let query = &document["components"]["schemas"]["Query"]["properties"];
        let mut listed: Vec<_> = query.as_object().unwrap().keys().collect();
        let mut known = PARAMETERS;
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
        let beginnings = query["from"]["enum"].as_array().unwrap();
        for from in beginnings {
            assert!(from_name(from.as_str().unwrap()).is_ok(), "{from}");
        }
        assert_eq!(beginnings.len(), 4);
    }

    #[test]
    fn queries_that_are_understood() {
        let position = Position::new(Epoch::new(0xab), Offset(42));
        for (text, start) in [
            ("", Start::Head),
            ("?from=head", Start::Head),
            ("?from=oldest", Start::Oldest),
            ("?from=open", Start::Open),
            ("?after=00000000000000ab-42", Start::After(position)),
            ("?after=00000000000000ab%2D42", Start::After(position)),
            ("?unknown=1&unknown=2&token=x", Start::Head),
        ] {
            assert_eq!(query(text), Ok(everything_from(start)), "{text}");
        }
        let asked =
            query("?thread_id=a%2Fb%20%C3%A9&run_id=r1&types=text_delta,my.type&join=false");
        assert_eq!(
            asked,
            Ok(Asked {
                client_id: None,
                begin: Begin::At(Start::Head),
                filter: Filter {
                    thread_id: Some(ThreadId::new("a/b é").unwrap()),
                    run_id: Some(RunId::new("r1").unwrap()),
                    types: Some(["text_delta".to_owned(), "my.type".to_owned()].into()),
                },
                join: false,
            })
        );
    }

    #[test]
    fn a_last_event_id_beats_where_the_url_begins() {
        let after = Start::After(Position::new(Epoch::new(0xab), Offset(42)));
        let asked = |query: &str, last_event_id| {
            let uri: Uri = format!("/v1/events{query}").parse().unwrap();
            Asked::in_query(&uri, Some(last_event_id)).map_err(fields)
        };
        for query in [
            "",
            "?from=oldest",
            "?from=acked",
            "?after=00000000000000ab-7",
            "?after=00000000000000cd-99",
        ] {
            let got = asked(query, "00000000000000ab-42");
            assert_eq!(got, Ok(everything_from(after)), "{query}");
        }
        for wrong in ["42", "ab-42", "00000000000000ab-42, 00000000000000ab-43"] {
            let got = asked("?after=00000000000000ab-7", wrong);
            assert_eq!(got, Err(vec!["last-event-id".to_owned()]), "{wrong}");
        }
        // The rest of the URL counts all the same.
        let got = asked("?types=A", "00000000000000ab-42");
        assert_eq!(got, Err(vec!["types[0]".to_owned()]));
    }

    #[test]
    fn a_client_names_itself_and_may_begin_after_what_it_acknowledged() {
        let tab = ClientId::new("tab 1").unwrap();
        let asked = |begin| Asked {
            client_id: Some(tab.clone()),
            begin,
            ..everything_from(Start::Head)
        };
        let head = asked(Begin::At(Start::Head));
        assert_eq!(query("?client_id=tab%201"), Ok(head));
        let acked = asked(Begin::Acked(tab.clone()));
        assert_eq!(query("?client_id=tab%201&from=acked"), Ok(acked));
        let request = |client_id: &str| SubscribeRequest {
            start: Some(subscribe_request::Start::From(StartFrom::Acked.into())),
            client_id: client_id.to_owned(),
            ..Default::default()
        };
        let acked = asked(Begin::Acked(tab.clone()));
        let got = Asked::in_request(request("tab 1")).map_err(fields);
        assert_eq!(got, Ok(acked));
        for wrong in [request(""), request("\n")] {
            let got = Asked::in_request(wrong).map_err(fields);
            assert_eq!(got, Err(vec!["client_id".to_owned()]));
        }
    }

    #[test]
    fn queries_that_are_refused() {
        let long = format!("?run_id={}", "x".repeat(129));
        let many = format!("?types={}", vec!["message"; 65].join(","));
        for (text, wrong) in [
            ("?after=1", "after"),
            ("?after=", "after"),
            ("?from=closed", "from"),
            ("?from=", "from"),
            ("?from=acked", "client_id"),
            ("?from=acked&client_id=", "client_id"),
            ("?client_id=a%0Ab", "client_id"),
            ("?after=00000000000000ab-42&from=acked", "from"),
            ("?after=00000000000000ab-42&from=head", "from"),
            ("?from=head&from=head", "from"),
            ("?types=message&types=message", "types"),
            ("?types=", "types[0]"),
            ("?types=message,Bad", "types[1]"),
            ("?types=agent_unknown", "types[0]"),
            ("?types=custom", "types[0]"),
            (&many, "types"),
            (&long, "run_id"),
            ("?thread_id=", "thread_id"),
            ("?thread_id=a%00b", "thread_id"),
            ("?join=no", "join"),
            ("?thread_id=%ff", "query"),
            ("?unknown=%c3", "query"),
        ] {
            assert_eq!(query(text), Err(vec![wrong.to_owned()]), "{text}");
        }
        assert_eq!(
            query("?join=1&after=x"),
            Err(vec!["after".to_owned(), "join".to_owned()])
        );
    }

    #[test]
    fn requests_are_understood_or_refused() {
        let after = |epoch: &str, offset| SubscribeRequest {
            start: Some(subscribe_request::Start::After(v1::Position {
                epoch: epoch.to_owned(),
                offset,
            })),
            ..Default::default()
        };
        let from = |from| SubscribeRequest {
            start: Some(subscribe_request::Start::From(from)),
            ..Default::default()
        };
        let position = Position::new(Epoch::new(0xab), Offset(7));
        for (request, want) in [
            (SubscribeRequest::default(), Ok(Start::Head)),
            (from(0), Ok(Start::Head)),
            (from(2), Ok(Start::Oldest)),
            (from(3), Ok(Start::Open)),
            (from(9), Err("from")),
            (after("00000000000000ab", 7), Ok(Start::After(position))),
            (after("ab", 7), Err("after")),
            (after("00000000000000ab", 1 << 53), Err("after")),
        ] {
            let got = Asked::in_request(request.clone()).map_err(fields);
            let want = want
                .map(everything_from)
                .map_err(|field| vec![field.to_owned()]);
            assert_eq!(got, want, "{request:?}");
        }
        let wrong = SubscribeRequest {
            thread_id: "\n".to_owned(),
            types: vec!["message".to_owned(), "A".to_owned()],
            join: Some(false),
            ..Default::default()
        };
        let wrong = Asked::in_request(wrong).map_err(fields);
        assert_eq!(
            wrong,
            Err(vec!["thread_id".to_owned(), "types[1]".to_owned()])
        );
    }
}
