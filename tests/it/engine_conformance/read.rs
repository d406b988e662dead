//! Reading: pages after a cursor, bounded.

use std::sync::Arc;

use emitter::{
    clock::Clock,
    engine::{Commit, Engine, ReadLimit},
    event::Offset,
};

use crate::support::events::{
    ALL, START, append, custom, draft, ids, notes, offsets, sized, stream,
};

pub(crate) async fn a_page_begins_after_its_cursor(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    for id in ["a", "b", "c"] {
        append(&*engine, &user, notes(&user, &[id], START)).await;
        append(
            &*engine,
            &stream("other"),
            notes(&stream("other"), &[id], START),
        )
        .await;
    }
    let everything = ["a", "b", "c"];
    let at = offsets(&crate::support::events::all(&*engine, &user).await);
    for (after, want) in [
        (0, &everything[..]),
        (at[0] - 1, &everything[..]),
        (at[0], &everything[1..]),
        // Just before the second, wherever that stands.
        (at[1] - 1, &everything[1..]),
        (at[1], &everything[2..]),
        (at[2], &[]),
        (at[2] + 1_000, &[]),
    ] {
        let page = engine.read(&user, Offset(after), ALL).await.unwrap();
        assert_eq!(ids(&page.records), want, "after {after}, records at {at:?}");
    }
}

pub(crate) async fn a_page_is_bounded_in_records(engine: Arc<dyn Engine>, _clock: Clock) {
    let user = stream("u");
    append(
        &*engine,
        &user,
        notes(&user, &["a", "b", "c", "d", "e"], START),
    )
    .await;
    let mut after = Offset(0);
    let mut pages = Vec::new();
    loop {
        let limit = ReadLimit { records: 2, ..ALL };
        let page = engine.read(&user, after, limit).await.unwrap();
        let Some(last) = page.records.last() else {
            break;
        };
        after = last.position.offset;
        pages.push(ids(&page.records).join(" "));
    }
    assert_eq!(pages, ["a b", "c d", "e"]);
}

pub(crate) async fn a_page_is_bounded_in_bytes_but_holds_one(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let draft = |id: &str| draft(sized(&user, id, None, custom("n"), 1_000), 0, START);
    let weight = draft("a").weight();
    let drafts = ["a", "b", "c"].map(draft).to_vec();
    append(&*engine, &user, Commit { drafts }).await;
    for (bytes, want) in [
        (0, 1),
        (weight, 1),
        (2 * weight - 1, 1),
        (2 * weight, 2),
        (3 * weight, 3),
    ] {
        let limit = ReadLimit {
            records: 100,
            bytes,
        };
        let page = engine.read(&user, Offset(0), limit).await.unwrap();
        assert_eq!(
            page.records.len(),
            want,
            "{bytes} bytes, a record has {weight}"
        );
    }
    let none = ReadLimit {
        records: 0,
        bytes: 0,
    };
    let page = engine.read(&user, Offset(0), none).await.unwrap();
    assert_eq!(ids(&page.records), ["a"]);
}

pub(crate) async fn a_page_names_the_head_and_what_is_trimmed(
    engine: Arc<dyn Engine>,
    _clock: Clock,
) {
    let user = stream("u");
    let appended = append(&*engine, &user, notes(&user, &["a", "b", "c"], START)).await;
    let limit = ReadLimit { records: 1, ..ALL };
    let page = engine.read(&user, Offset(0), limit).await.unwrap();
    assert_eq!(page.head, appended.records[2].position);
    assert_eq!(page.trimmed, Offset(0));
    assert_eq!(page.head, engine.load(&user).await.unwrap().head);
}
