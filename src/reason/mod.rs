//! The one table of reasons: why an event was refused, why a stream was closed, and what each is called on every
//! surface.

mod refusal;
mod status;

pub use refusal::{Refusal, Violation};
pub use status::{MESSAGE_CHARS, to_status};

use tonic::Code;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "emitter";

/// Why something was refused or closed. The names are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field is missing, malformed, too large or too deep.
    InvalidEvent,
    /// The call itself is malformed.
    InvalidRequest,
    /// A known event id came again with other content.
    EventIdReused,
    /// Nothing of a run comes before its `agent_started`.
    RunNotStarted,
    /// A run starts once.
    RunAlreadyStarted,
    /// Nothing of a run comes after its end.
    RunEnded,
    /// The tool call that completed is not open.
    ToolCallUnknown,
    /// The parent is no open run of the same user.
    ParentNotOpen,
    /// The run belongs to another user of the tenant.
    RunOwnedByOtherUser,
    /// Another source of the same term owns the run.
    CompetingSource,
    /// A source of a higher term has taken the run over.
    SourceFenced,
    /// There is no credential, or it does not verify.
    Unauthenticated,
    /// The credential has expired: get a new one first.
    CredentialExpired,
    /// The credential lacks the scope that this needs.
    ScopeMissing,
    /// The credential is of another tenant.
    TenantForbidden,
    /// The credential may not address this user.
    UserForbidden,
    /// The page's origin is not on the allow list.
    OriginRefused,
    /// There is no room in the store.
    StreamFull,
    /// A count or size limit was reached.
    LimitExceeded,
    /// Too many connections.
    ConnectionLimit,
    /// The client sends frames faster than allowed.
    TooManyFrames,
    /// A newer connection of the same client took its place.
    Replaced,
    /// An operator ended the connection.
    Disconnected,
    /// The reader made no progress for too long.
    TooSlow,
    /// An earlier item of the batch must be retried first.
    PrecedingFailed,
    /// The engine cannot be reached, or its queue is full. Nothing was stored.
    EngineUnavailable,
    /// The engine did not say whether it stored the event.
    OutcomeUnknown,
    /// Other writers of the same stream came first too often. Nothing was stored.
    Contended,
    /// The server is shutting down. Nothing was stored.
    Draining,
    /// The caller's deadline passed before the event was stored.
    DeadlineExceeded,
    /// There is no such method, or it does not take calls in this form.
    Unimplemented,
    /// What was asked for is not known.
    NotFound,
}

/// One row of the table.
struct Row {
    name: &'static str,
    code: Code,
    /// How it ends or refuses a stream, if it does: the WebSocket close code (4000–4499 "come back", 4500–4999 "do
    /// not"), and the HTTP status of a handshake for those who can read it.
    stream: Option<(u16, u16)>,
    /// Whether the same event is worth sending again as it is.
    retryable: bool,
    meaning: &'static str,
}

const fn row(
    name: &'static str,
    code: Code,
    stream: Option<(u16, u16)>,
    retryable: bool,
    meaning: &'static str,
) -> Row {
    Row {
        name,
        code,
        stream,
        retryable,
        meaning,
    }
}

/// RFC 6455: an unexpected condition. For a stream that ends for a reason which is none of streams.
const INTERNAL_CLOSE: u16 = 1011;

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Reason; 32] = [
        Reason::InvalidEvent,
        Reason::InvalidRequest,
        Reason::EventIdReused,
        Reason::RunNotStarted,
        Reason::RunAlreadyStarted,
        Reason::RunEnded,
        Reason::ToolCallUnknown,
        Reason::ParentNotOpen,
        Reason::RunOwnedByOtherUser,
        Reason::CompetingSource,
        Reason::SourceFenced,
        Reason::Unauthenticated,
        Reason::CredentialExpired,
        Reason::ScopeMissing,
        Reason::TenantForbidden,
        Reason::UserForbidden,
        Reason::OriginRefused,
        Reason::StreamFull,
        Reason::LimitExceeded,
        Reason::ConnectionLimit,
        Reason::TooManyFrames,
        Reason::Replaced,
        Reason::Disconnected,
        Reason::TooSlow,
        Reason::PrecedingFailed,
        Reason::EngineUnavailable,
        Reason::OutcomeUnknown,
        Reason::Contended,
        Reason::Draining,
        Reason::DeadlineExceeded,
        Reason::Unimplemented,
        Reason::NotFound,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Self::InvalidEvent => row("INVALID_EVENT", Code::InvalidArgument, None, false,
                "a field is missing, malformed, too large or too deep"),
            Self::InvalidRequest => row("INVALID_REQUEST", Code::InvalidArgument, Some((4501, 400)), false,
                "the call or the handshake makes no sense"),
            Self::EventIdReused => row("EVENT_ID_REUSED", Code::AlreadyExists, None, false,
                "a known `event_id` came again with other content"),
            Self::RunNotStarted => row("RUN_NOT_STARTED", Code::FailedPrecondition, None, false,
                "nothing of a run comes before its `agent_started`"),
            Self::RunAlreadyStarted => row("RUN_ALREADY_STARTED", Code::FailedPrecondition, None, false,
                "a run starts once"),
            Self::RunEnded => row("RUN_ENDED", Code::FailedPrecondition, None, false,
                "nothing of a run comes after its end"),
            Self::ToolCallUnknown => row("TOOL_CALL_UNKNOWN", Code::FailedPrecondition, None, false,
                "the tool call that completed is not open"),
            Self::ParentNotOpen => row("PARENT_NOT_OPEN", Code::FailedPrecondition, None, false,
                "the parent is no open run of the same user"),
            Self::RunOwnedByOtherUser => row("RUN_OWNED_BY_OTHER_USER", Code::PermissionDenied, None, false,
                "the `run_id` belongs to another user of the tenant"),
            Self::CompetingSource => row("COMPETING_SOURCE", Code::FailedPrecondition, None, false,
                "another source of the same term owns the run"),
            Self::SourceFenced => row("SOURCE_FENCED", Code::FailedPrecondition, None, false,
                "a source of a higher term has taken the run over"),
            Self::Unauthenticated => row("UNAUTHENTICATED", Code::Unauthenticated, Some((4500, 401)), false,
                "there is no credential, or it does not verify"),
            Self::CredentialExpired => row("CREDENTIAL_EXPIRED", Code::Unauthenticated, Some((4003, 401)), false,
                "get a new credential first"),
            Self::ScopeMissing => row("SCOPE_MISSING", Code::PermissionDenied, Some((4500, 403)), false,
                "the credential lacks the scope"),
            Self::TenantForbidden => row("TENANT_FORBIDDEN", Code::PermissionDenied, Some((4500, 403)), false,
                "the credential is of another tenant"),
            Self::UserForbidden => row("USER_FORBIDDEN", Code::PermissionDenied, Some((4500, 403)), false,
                "the credential may not address this user"),
            Self::OriginRefused => row("ORIGIN_REFUSED", Code::PermissionDenied, Some((4505, 403)), false,
                "the page's origin is not on the allow list"),
            Self::StreamFull => row("STREAM_FULL", Code::ResourceExhausted, None, true,
                "there is no room in the store"),
            Self::LimitExceeded => row("LIMIT_EXCEEDED", Code::ResourceExhausted, None, false,
                "a count was reached, such as the open runs of a user"),
            Self::ConnectionLimit => row("CONNECTION_LIMIT", Code::ResourceExhausted, Some((4006, 429)), true,
                "the user has too many readers"),
            Self::TooManyFrames => row("TOO_MANY_FRAMES", Code::ResourceExhausted, Some((4506, 429)), false,
                "the client sends frames too fast"),
            Self::Replaced => row("REPLACED", Code::Aborted, Some((4508, 409)), false,
                "a newer connection of the same `client_id` took its place"),
            Self::Disconnected => row("DISCONNECTED", Code::Unavailable, Some((4008, 503)), true,
                "an operator ended the connection; come back"),
            Self::TooSlow => row("TOO_SLOW", Code::ResourceExhausted, Some((4002, 503)), true,
                "the reader took nothing in for 30 s"),
            Self::PrecedingFailed => row("PRECEDING_FAILED", Code::Aborted, None, true,
                "an earlier item of the batch must be retried first"),
            Self::EngineUnavailable => row("ENGINE_UNAVAILABLE", Code::Unavailable, Some((4004, 503)), true,
                "the store cannot be reached, or its queue is full; not stored"),
            Self::OutcomeUnknown => row("OUTCOME_UNKNOWN", Code::Unavailable, None, true,
                "the store did not answer: stored or not"),
            Self::Contended => row("CONTENDED", Code::Unavailable, None, true,
                "other writers came first too often; not stored"),
            Self::Draining => row("DRAINING", Code::Unavailable, Some((4001, 503)), true,
                "the server is shutting down; not stored"),
            Self::DeadlineExceeded => row("DEADLINE_EXCEEDED", Code::DeadlineExceeded, None, true,
                "the caller's deadline passed; not stored"),
            Self::Unimplemented => row("UNIMPLEMENTED", Code::Unimplemented, None, false,
                "there is no such method, or it does not take this compression"),
            Self::NotFound => row("NOT_FOUND", Code::NotFound, None, false,
                "what was asked for is not known"),
        }
    }

    /// The name on every surface, such as `INVALID_EVENT`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The gRPC code.
    pub const fn code(self) -> Code {
        self.row().code
    }

    /// What it means, in a few words.
    pub const fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// The WebSocket close code and the status of a failed handshake, where streams end or are refused for this
    /// reason.
    pub const fn of_streams(self) -> Option<(u16, u16)> {
        self.row().stream
    }

    /// The WebSocket close code of a stream that ends for this reason.
    pub const fn close_code(self) -> u16 {
        match self.row().stream {
            Some((close, _)) => close,
            None => INTERNAL_CLOSE,
        }
    }

    /// The HTTP status of a handshake that fails for this reason.
    pub const fn http_status(self) -> u16 {
        match self.row().stream {
            Some((_, http)) => http,
            None => 500,
        }
    }

    /// Whether the same event is worth sending again as it is, with the same id.
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// Whether a reader that was closed for this reason should come back.
    pub const fn come_back(self) -> bool {
        matches!(self.row().stream, Some((4000..4500, _)))
    }

    /// This reason's place in `ALL`, for tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_at_its_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{}", reason.name());
        }
    }

    #[test]
    fn names_are_unique_and_upper_snake() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn close_codes_keep_to_the_two_private_ranges() {
        for reason in Reason::ALL {
            if let Some((close, http)) = reason.of_streams() {
                assert!((4000..5000).contains(&close), "{}: {close}", reason.name());
                assert!((400..600).contains(&http), "{}: {http}", reason.name());
            }
        }
    }
}
