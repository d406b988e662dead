//! The key store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use emitter::{
    clock::Clock,
    engine::{Engine, Key},
    event::{RunId, Tenant},
};

use crate::support::events::START;

const TTL: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn key(tenant: &str, run: &str) -> Key {
    Key::RunClaim(Tenant::new(tenant).unwrap(), RunId::new(run).unwrap())
}

const ONE: Bytes = Bytes::from_static(b"one");
const TWO: Bytes = Bytes::from_static(b"two");

pub(crate) async fn a_key_is_put_once(engine: Arc<dyn Engine>, clock: Clock) {
    let key = key("t", "r");
    assert_eq!(engine.put_if_absent(&key, ONE, TTL).await, Ok(None));
    clock.advance(SECOND);
    let there = engine.put_if_absent(&key, TWO, TTL).await.unwrap();
    let there = there.expect("the first value is there");
    assert_eq!((there.value, there.put_at), (ONE, START));
}

pub(crate) async fn a_key_expires(engine: Arc<dyn Engine>, clock: Clock) {
    let key = key("t", "r");
    engine.put_if_absent(&key, ONE, TTL).await.unwrap();
    clock.advance(TTL - SECOND);
    let there = engine.put_if_absent(&key, TWO, TTL).await.unwrap();
    assert!(there.is_some(), "a second before it expires");
    clock.advance(SECOND);
    // What has expired is not there, whether or not it was swept.
    assert_eq!(
        engine.compare_and_set(&key, &ONE, TWO, TTL).await,
        Ok(false)
    );
    assert_eq!(engine.put_if_absent(&key, TWO, TTL).await, Ok(None));
    let there = engine.put_if_absent(&key, ONE, TTL).await.unwrap();
    assert_eq!(there.map(|entry| entry.value), Some(TWO));
}

pub(crate) async fn a_key_is_replaced_only_from_the_expected_value(
    engine: Arc<dyn Engine>,
    clock: Clock,
) {
    let key = key("t", "r");
    assert_eq!(
        engine.compare_and_set(&key, &ONE, TWO, TTL).await,
        Ok(false),
        "nothing is there"
    );
    engine.put_if_absent(&key, ONE, TTL).await.unwrap();
    assert_eq!(
        engine.compare_and_set(&key, &TWO, TWO, TTL).await,
        Ok(false)
    );
    clock.advance(SECOND);
    assert_eq!(engine.compare_and_set(&key, &ONE, TWO, TTL).await, Ok(true));
    let there = engine.put_if_absent(&key, ONE, TTL).await.unwrap().unwrap();
    assert_eq!((there.value, there.put_at), (TWO, START + SECOND));
}

pub(crate) async fn replacing_renews_the_time_to_live(engine: Arc<dyn Engine>, clock: Clock) {
    let key = key("t", "r");
    engine.put_if_absent(&key, ONE, TTL).await.unwrap();
    for _ in 0..5 {
        clock.advance(TTL - SECOND);
        assert_eq!(engine.compare_and_set(&key, &ONE, ONE, TTL).await, Ok(true));
    }
    clock.advance(TTL);
    assert_eq!(engine.put_if_absent(&key, TWO, TTL).await, Ok(None));
}

pub(crate) async fn keys_do_not_see_each_other(engine: Arc<dyn Engine>, _clock: Clock) {
    for (tenant, run) in [
        ("t", "r"),
        ("t", "r2"),
        ("t2", "r"),
        ("tr", "r"),
        ("t", "rr"),
    ] {
        assert_eq!(
            engine.put_if_absent(&key(tenant, run), ONE, TTL).await,
            Ok(None),
            "{tenant} {run}"
        );
    }
}
