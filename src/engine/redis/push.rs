//! What a master pushes by itself.

use std::sync::Arc;

use redis::{
    PushInfo, PushKind,
    aio::{AsyncPushSender, SendError},
};
use tokio::sync::Notify;

use super::hints::Registry;

/// Takes what one master pushes.
#[derive(Clone)]
pub(super) struct Push {
    pub(super) registry: Arc<Registry>,
    pub(super) shard: u64,
    /// The connection broke.
    pub(super) disconnected: Arc<Notify>,
}

impl AsyncPushSender for Push {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        match info.kind {
            PushKind::SMessage => self.registry.message(self.shard, info.data),
            PushKind::SSubscribe => self.registry.subscribed(self.shard, info.data),
            PushKind::SUnsubscribe => self.registry.unsubscribed(self.shard, info.data),
            PushKind::Disconnection => self.disconnected.notify_one(),
            _ => {}
        }
        Ok(())
    }
}
