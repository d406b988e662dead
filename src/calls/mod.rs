//! What a gRPC call passes before its service sees it.
//!
//! 1. Its headers are admitted: credential and scope.
//! 2. Its body is collected as it arrives (`body`). A length that is only announced reserves nothing. What unfinished bodies
//!    hold is charged to their credential (`charges`).
//! 3. With the body complete, an emit takes one of `limits.grpc_calls` permits. An unfinished body holds none.

mod body;
mod charges;
mod deadline;
mod guarded;

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::{Body as HttpBody, StdError};

use crate::{
    access::{Authenticator, Principal},
    event::StreamKey,
    reason::{Reason, Refusal},
    telemetry::Metrics,
};

pub use body::NotArrived;
pub use deadline::Deadline;
pub use guarded::{Guarded, REQUEST_BYTES, admitted};

use charges::Charges;

/// Bounds of calls on their way in.
#[derive(Clone, Debug)]
pub struct Config {
    /// The most emits at a time whose body has arrived.
    pub calls: usize,
    /// How long a body may take to arrive.
    pub body: Duration,
    /// The most bytes of unfinished bodies.
    pub body_bytes: usize,
    /// The most bytes of unfinished bodies of one credential.
    pub body_bytes_per_credential: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            calls: 1024,
            body: Duration::from_secs(30),
            body_bytes: 256 * 1024 * 1024,
            body_bytes_per_credential: 64 * 1024 * 1024,
        }
    }
}

/// The calls of this node on their way in.
pub struct Calls {
    authenticator: Arc<Authenticator>,
    config: Config,
    metrics: Arc<Metrics>,
    charges: Arc<Charges>,
    permits: Arc<Semaphore>,
}

/// A body that has arrived. It stays charged to its credential until this is dropped.
pub struct Arrived {
    /// The whole body.
    pub bytes: bytes::Bytes,
    _charge: charges::Charge,
}

impl Calls {
    /// Admits what `authenticator` verifies, within the bounds of `config`.
    pub fn new(
        authenticator: Arc<Authenticator>,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let charges = Charges::new(
            config.body_bytes,
            config.body_bytes_per_credential,
            metrics.body_bytes.clone(),
        );
        Arc::new(Self {
            authenticator,
            charges,
            permits: Arc::new(Semaphore::new(config.calls)),
            config,
            metrics,
        })
    }

    /// Collects `body`, whose message may have `limit` bytes, and charges `caller` for it while it is unfinished.
    ///
    /// # Errors
    /// See [`NotArrived`].
    pub async fn body<B>(
        &self,
        caller: &Principal,
        body: B,
        limit: usize,
        deadline: Option<Deadline>,
    ) -> Result<Arrived, NotArrived>
    where
        B: HttpBody<Error: Into<StdError>> + Send,
    {
        let payer = StreamKey::new(caller.tenant.clone(), caller.subject.clone());
        let mut charge = self.charges.of(payer);
        let collected = body::collect(body, limit, |bytes| charge.raise_to(bytes));
        let bytes = tokio::select! {
            biased;
            bytes = collected => bytes?,
            () = tokio::time::sleep(self.config.body) => return Err(NotArrived::Overdue),
            () = Deadline::passed(deadline) => return Err(NotArrived::Deadline),
        };
        Ok(Arrived {
            bytes,
            _charge: charge,
        })
    }

    /// One of the permits to emit, in the order of the calls.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED`.
    pub async fn permit(
        &self,
        deadline: Option<Deadline>,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        tokio::select! {
            biased;
            // The semaphore is never closed.
            Ok(permit) = self.permits.clone().acquire_owned() => Ok(permit),
            () = Deadline::passed(deadline) => Err(NotArrived::Deadline.refusal()),
        }
    }
}

impl NotArrived {
    /// What the caller is answered. Nothing of the call was stored.
    pub fn refusal(&self) -> Refusal {
        let late = |message| Refusal::new(Reason::DeadlineExceeded, message);
        match self {
            Self::TooLarge(limit) => Refusal::new(
                Reason::InvalidRequest,
                format!("the request has more than {limit} bytes"),
            ),
            Self::Overdue => late("the body did not arrive in time; not stored"),
            Self::Deadline => late("the deadline passed; not stored"),
            Self::Broken => Refusal::new(Reason::InvalidRequest, "the body ended early"),
            Self::NoRoom(whose) => Refusal {
                retry_after: Some(Duration::from_secs(1)),
                ..Refusal::new(
                    Reason::LimitExceeded,
                    format!("unfinished bodies of {whose} take too many bytes; not stored"),
                )
            },
        }
    }
}
