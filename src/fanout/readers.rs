//! Who reads on this node, by whichever door they came in.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, OnceLock},
};

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    clock::Timestamp,
    event::{ClientId, Position, StreamKey},
    reason::{Reason, Refusal},
};

/// How a reader is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `GET /v1/stream`.
    WebSocket,
    /// `GET /v1/events`.
    Sse,
    /// `EventSubscriber.Subscribe`.
    Grpc,
}

/// Who a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the connection, for the reader and for operators; unique.
    pub connection_id: Arc<str>,
    /// Whose stream it reads.
    pub stream: StreamKey,
    /// The client, if it named itself.
    pub client_id: Option<ClientId>,
    /// How it is connected.
    pub transport: Transport,
    /// When it connected.
    pub connected_at: Timestamp,
}

/// A connected reader, as everyone but its own connection sees it.
#[derive(Debug)]
pub struct Connection {
    /// Who it is.
    pub identity: Identity,
    /// `None` until its stream begins.
    position: Mutex<Option<Position>>,
    ended: OnceLock<Reason>,
    end: Notify,
}

impl Connection {
    /// Everything up to here was handed to it; `None` before its stream begins.
    pub fn position(&self) -> Option<Position> {
        *self.position.lock()
    }

    /// Has it end for `reason`. `false`: it was told to end before.
    pub fn end(&self, reason: Reason) -> bool {
        let first = self.ended.set(reason).is_ok();
        // There is one who waits. If it does not wait just now, it will find this.
        self.end.notify_one();
        first
    }
}

/// The readers of this node. The doors bound how many there can be in all.
pub struct Readers {
    inner: Mutex<Inner>,
    /// How many there are, with those that part.
    total: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    /// In the order in which they came. No user stands with none.
    by_user: HashMap<StreamKey, Vec<Arc<Connection>>>,
    by_id: BTreeMap<Arc<str>, Arc<Connection>>,
}

impl Readers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            total: watch::Sender::new(0),
        })
    }

    /// One more reader, shown by `gauge`, of a user who may have `most`. A connection of the same client does not
    /// count: it is about to be replaced.
    ///
    /// # Errors
    /// `CONNECTION_LIMIT`.
    pub fn enter(
        self: &Arc<Self>,
        identity: Identity,
        most: usize,
        gauge: &Gauge,
    ) -> Result<Reader, Refusal> {
        let connection = Arc::new(Connection {
            identity,
            position: Mutex::default(),
            ended: OnceLock::new(),
            end: Notify::new(),
        });
        let inner = &mut *self.inner.lock();
        let of_user = inner.of(&connection.identity.stream);
        let others = of_user.iter().filter(|other| !other.is_same(&connection));
        let others = others.count();
        if others >= most {
            return Err(Refusal::new(
                Reason::ConnectionLimit,
                format!("the user has {others} readers already"),
            ));
        }
        inner.insert(connection.clone());
        self.total.send_modify(|total| *total += 1);
        gauge.increment(1.0);
        Ok(Reader {
            readers: self.clone(),
            connection,
            gauge: gauge.clone(),
        })
    }

    /// At most `most` of those that `wanted` admits, in the order of their ids, which are after `after`.
    pub fn list(
        &self,
        after: &str,
        most: usize,
        wanted: impl Fn(&Identity) -> bool,
    ) -> Vec<Arc<Connection>> {
        let inner = self.inner.lock();
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let later = inner.by_id.range::<str, _>(from);
        let wanted = later.filter(|(_, connection)| wanted(&connection.identity));
        wanted.take(most).map(|(_, found)| found.clone()).collect()
    }

    /// Those of one user, in the order in which they came.
    pub fn of(&self, stream: &StreamKey) -> Vec<Arc<Connection>> {
        self.inner.lock().of(stream).to_vec()
    }

    /// The one with this id.
    pub fn find(&self, connection_id: &str) -> Option<Arc<Connection>> {
        self.inner.lock().by_id.get(connection_id).cloned()
    }

    /// A stay that counts for no user, and that `gone` waits for all the same: that of a reader that has made room and
    /// is still to be told why.
    pub fn parting(self: &Arc<Self>) -> Parting {
        self.total.send_modify(|total| *total += 1);
        Parting(self.clone())
    }

    /// Waits until there is no reader, and none that is still to be told why it goes.
    pub async fn gone(&self) {
        let mut total = self.total.subscribe();
        let _sender_is_here = total.wait_for(|total| *total == 0).await;
    }

    fn one_less(&self) {
        self.total
            .send_modify(|total| *total = total.saturating_sub(1));
    }
}

impl Connection {
    /// Whether both are of the same client.
    fn is_same(&self, other: &Self) -> bool {
        let client_id = &self.identity.client_id;
        client_id.is_some() && *client_id == other.identity.client_id
    }
}

impl Inner {
    fn of(&self, stream: &StreamKey) -> &[Arc<Connection>] {
        self.by_user.get(stream).map_or(&[], Vec::as_slice)
    }

    fn insert(&mut self, connection: Arc<Connection>) {
        let Identity {
            connection_id,
            stream,
            ..
        } = &connection.identity;
        self.by_id.insert(connection_id.clone(), connection.clone());
        let of_user = self.by_user.entry(stream.clone()).or_default();
        of_user.push(connection);
    }

    fn remove(&mut self, connection: &Arc<Connection>) {
        let identity = &connection.identity;
        self.by_id.remove(&identity.connection_id);
        if let Some(of_user) = self.by_user.get_mut(&identity.stream) {
            of_user.retain(|other| !Arc::ptr_eq(other, connection));
            if of_user.is_empty() {
                self.by_user.remove(&identity.stream);
            }
        }
    }
}

/// See [`Readers::parting`]. Dropping it ends the stay.
pub struct Parting(Arc<Readers>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.one_less();
    }
}

/// A reader's own place among the readers; dropping it takes it out.
pub struct Reader {
    readers: Arc<Readers>,
    connection: Arc<Connection>,
    gauge: Gauge,
}

impl Reader {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.connection.identity
    }

    /// Ends those that came before of the same client, and takes their places.
    pub fn replace(&self) {
        let mut inner = self.readers.inner.lock();
        let of_user = inner.of(&self.identity().stream);
        // Who was replaced itself meanwhile is not there any more, and replaces nobody.
        let here = of_user
            .iter()
            .position(|other| Arc::ptr_eq(other, &self.connection));
        let before = of_user.iter().take(here.unwrap_or(0));
        let replaced = before.filter(|other| other.is_same(&self.connection));
        let replaced: Vec<_> = replaced.cloned().collect();
        for older in replaced {
            inner.remove(&older);
            older.end(Reason::Replaced);
        }
    }

    /// Everything up to `position` was handed to its connection.
    pub fn reached(&self, position: Position) {
        *self.connection.position.lock() = Some(position);
    }

    /// Waits until it is to end, and says why. Cancel-safe.
    pub async fn ended(&self) -> Reason {
        loop {
            if let Some(reason) = self.connection.ended.get() {
                return *reason;
            }
            self.connection.end.notified().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.inner.lock().remove(&self.connection);
        self.readers.one_less();
        self.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::event::{Tenant, UserId};

    fn stream(user: &str) -> StreamKey {
        StreamKey::new(Tenant::new("t").unwrap(), UserId::new(user).unwrap())
    }

    /// The connection `id` of `user`, of `client` if that is not empty.
    fn enter(readers: &Arc<Readers>, id: &str, user: &str, client: &str) -> Result<Reader, Reason> {
        let identity = Identity {
            connection_id: id.into(),
            stream: stream(user),
            client_id: ClientId::new(client).ok(),
            transport: Transport::WebSocket,
            connected_at: Timestamp::from_millis(1),
        };
        let entered = readers.enter(identity, 2, &Gauge::noop());
        entered.map_err(|refusal| refusal.reason)
    }

    fn ended(reader: &Reader) -> Option<Reason> {
        reader.ended().now_or_never()
    }

    fn ids(connections: &[Arc<Connection>]) -> Vec<&str> {
        connections
            .iter()
            .map(|connection| &*connection.identity.connection_id)
            .collect()
    }

    #[tokio::test]
    async fn readers_are_bounded_per_user_and_leave_nothing_behind() {
        let readers = Readers::new();
        let first = enter(&readers, "1", "u", "").unwrap();
        let second = enter(&readers, "2", "u", "").unwrap();
        let refused = enter(&readers, "3", "u", "").err();
        assert_eq!(refused, Some(Reason::ConnectionLimit));
        let other = enter(&readers, "4", "v", "").unwrap();
        drop(first);
        let third = enter(&readers, "5", "u", "").unwrap();
        drop((second, third, other));
        {
            let inner = readers.inner.lock();
            assert!(inner.by_user.is_empty() && inner.by_id.is_empty());
        }
        readers.gone().await;
    }

    #[tokio::test]
    async fn who_is_parting_makes_room_but_is_not_gone() {
        let readers = Readers::new();
        let parting = readers.parting();
        drop(enter(&readers, "1", "u", "").unwrap());
        assert!(enter(&readers, "2", "u", "").is_ok());
        assert!(readers.gone().now_or_never().is_none());
        drop(parting);
        readers.gone().await;
    }

    #[test]
    fn a_newer_connection_of_a_client_takes_the_place_of_the_older_one() {
        let readers = Readers::new();
        let older = enter(&readers, "1", "u", "tab").unwrap();
        let others = [
            enter(&readers, "2", "u", "").unwrap(),
            enter(&readers, "3", "v", "tab").unwrap(),
        ];
        // There is no room but its own.
        let newer = enter(&readers, "4", "u", "tab").unwrap();
        assert_eq!(ended(&older), None, "the newer one has not begun");
        newer.replace();
        assert_eq!(ended(&older), Some(Reason::Replaced));
        assert_eq!(ids(&readers.of(&stream("u"))), ["2", "4"]);
        drop(older);
        assert_eq!(ids(&readers.of(&stream("u"))), ["2", "4"]);
        assert!(others.iter().all(|other| ended(other).is_none()));
        let refused = enter(&readers, "5", "u", "").err();
        assert_eq!(refused, Some(Reason::ConnectionLimit));
    }

    #[test]
    fn of_two_that_come_at_once_the_later_stays() {
        let readers = Readers::new();
        let first = enter(&readers, "1", "u", "tab").unwrap();
        let second = enter(&readers, "2", "u", "tab").unwrap();
        second.replace();
        first.replace();
        assert_eq!(
            (ended(&first), ended(&second)),
            (Some(Reason::Replaced), None)
        );
    }

    #[test]
    fn connections_without_a_name_replace_nobody() {
        let readers = Readers::new();
        let first = enter(&readers, "1", "u", "").unwrap();
        enter(&readers, "2", "u", "").unwrap().replace();
        assert_eq!(ended(&first), None);
    }

    #[test]
    fn they_are_listed_in_the_order_of_their_ids_and_end_once() {
        let readers = Readers::new();
        let entered = ["3", "1", "2", "4"].map(|id| enter(&readers, id, id, "").unwrap());
        let wanted = |identity: &Identity| &*identity.connection_id != "2";
        assert_eq!(ids(&readers.list("", 2, wanted)), ["1", "3"]);
        assert_eq!(ids(&readers.list("1", 9, wanted)), ["3", "4"]);
        assert_eq!(ids(&readers.list("4", 9, wanted)), [] as [&str; 0]);
        let found = readers.find("3").unwrap();
        assert!(found.end(Reason::Disconnected) && !found.end(Reason::Replaced));
        assert_eq!(ended(&entered[0]), Some(Reason::Disconnected));
        assert!(readers.find("5").is_none());
    }
}
