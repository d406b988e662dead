//! A call of the engine that outlives whoever waits for it.

use futures_util::future::BoxFuture;

use crate::engine::EngineError;

/// A call that is under way, or none. A reader is dropped from its waiting now and then, such as for a heartbeat: were
/// its call begun anew each time, a slow one would never end, and one that hangs would never be late.
pub(super) struct Pending<T>(Option<BoxFuture<'static, Result<T, EngineError>>>);

impl<T> Pending<T> {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Whether one is under way.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for the call under way, or else for the one that `begin` begins. Cancel-safe.
    pub(super) async fn answer(
        &mut self,
        begin: impl FnOnce() -> BoxFuture<'static, Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let answer = self.0.get_or_insert_with(begin).await;
        self.0 = None;
        answer
    }
}
