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
    /// The run belongs to another user of the tenant.
    RunOwnedByOtherUser,
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
}

/// One row of the table.
struct Row {
    name: &'static str,
    code: Code,
    /// The WebSocket close code: 4000–4499 "come back", 4500–4999 "do not".
    close: u16,
    /// The status of a failed handshake, for those who can read it.
    http: u16,
    /// Whether the same event is worth sending again as it is.
    retryable: bool,
}

const fn row(name: &'static str, code: Code, close: u16, http: u16, retryable: bool) -> Row {
    Row {
        name,
        code,
        close,
        http,
        retryable,
    }
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Reason; 21] = [
        Reason::InvalidEvent,
        Reason::InvalidRequest,
        Reason::EventIdReused,
        Reason::RunOwnedByOtherUser,
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
        Reason::TooSlow,
        Reason::PrecedingFailed,
        Reason::EngineUnavailable,
        Reason::OutcomeUnknown,
        Reason::Contended,
        Reason::Draining,
        Reason::DeadlineExceeded,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Self::InvalidEvent        => row("INVALID_EVENT",           Code::InvalidArgument,    4501, 400, false),
            Self::InvalidRequest      => row("INVALID_REQUEST",         Code::InvalidArgument,    4501, 400, false),
            Self::EventIdReused       => row("EVENT_ID_REUSED",         Code::AlreadyExists,      4501, 409, false),
            Self::RunOwnedByOtherUser => row("RUN_OWNED_BY_OTHER_USER", Code::PermissionDenied,   4501, 403, false),
            Self::Unauthenticated     => row("UNAUTHENTICATED",         Code::Unauthenticated,    4500, 401, false),
            Self::CredentialExpired   => row("CREDENTIAL_EXPIRED",      Code::Unauthenticated,    4003, 401, false),
            Self::ScopeMissing        => row("SCOPE_MISSING",           Code::PermissionDenied,   4500, 403, false),
            Self::TenantForbidden     => row("TENANT_FORBIDDEN",        Code::PermissionDenied,   4500, 403, false),
            Self::UserForbidden       => row("USER_FORBIDDEN",          Code::PermissionDenied,   4500, 403, false),
            Self::OriginRefused       => row("ORIGIN_REFUSED",          Code::PermissionDenied,   4505, 403, false),
            Self::StreamFull          => row("STREAM_FULL",             Code::ResourceExhausted,  4007, 503, true),
            Self::LimitExceeded       => row("LIMIT_EXCEEDED",          Code::ResourceExhausted,  4007, 429, false),
            Self::ConnectionLimit     => row("CONNECTION_LIMIT",        Code::ResourceExhausted,  4006, 429, true),
            Self::TooManyFrames       => row("TOO_MANY_FRAMES",         Code::ResourceExhausted,  4506, 429, false),
            Self::TooSlow             => row("TOO_SLOW",                Code::ResourceExhausted,  4002, 503, true),
            Self::PrecedingFailed     => row("PRECEDING_FAILED",        Code::Aborted,            4004, 503, true),
            Self::EngineUnavailable   => row("ENGINE_UNAVAILABLE",      Code::Unavailable,        4004, 503, true),
            Self::OutcomeUnknown      => row("OUTCOME_UNKNOWN",         Code::Unavailable,        4004, 503, true),
            Self::Contended           => row("CONTENDED",               Code::Unavailable,        4004, 503, true),
            Self::Draining            => row("DRAINING",                Code::Unavailable,        4001, 503, true),
            Self::DeadlineExceeded    => row("DEADLINE_EXCEEDED",       Code::DeadlineExceeded,   4004, 504, true),
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

    /// The WebSocket close code.
    pub const fn close_code(self) -> u16 {
        self.row().close
    }

    /// The HTTP status of a handshake that fails for this reason.
    pub const fn http_status(self) -> u16 {
        self.row().http
    }

    /// Whether the same event is worth sending again as it is, with the same id.
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// Whether a reader that was closed for this reason should come back.
    pub const fn come_back(self) -> bool {
        self.row().close < 4500
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
            let code = reason.close_code();
            assert!((4000..5000).contains(&code), "{}: {code}", reason.name());
        }
    }
}
