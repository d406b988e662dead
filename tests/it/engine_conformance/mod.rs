//! What every engine must do, as tests on the `Engine` trait. An engine joins by one line: `conformance!`.
//!
//! A factory makes an empty engine within `bounds`, the manual clock that it reads, and whatever must outlive it.

pub(crate) mod append;
pub(crate) mod keys;
pub(crate) mod listing;
pub(crate) mod load;
pub(crate) mod race;
pub(crate) mod read;
pub(crate) mod retention;
pub(crate) mod runs;
pub(crate) mod usage;
pub(crate) mod watch;

use std::time::Duration;

use emitter::{
    clock::Clock,
    engine::{
        Engine, StreamState,
        memory::{Config, MemoryEngine},
    },
    event::Position,
};

/// Records of one user that an engine under test retains.
const RECORDS: usize = 300;

/// Bytes of records of one user that it retains.
const BYTES: usize = 1 << 20;

/// How long it retains them.
const AGE: Duration = Duration::from_secs(60 * 60);

/// How long it remembers an event id.
const WINDOW: Duration = Duration::from_secs(2 * 60 * 60);

/// How many ids of one user it remembers.
const IDS: usize = 1_000;

/// How long it keeps the usage of a day after its end.
const USAGE_AGE: Duration = Duration::from_secs(4 * 24 * 60 * 60);

/// How many series of usage it tells apart, at least.
const USAGE_SERIES: usize = 300;

/// The bounds of an engine under test.
pub(crate) fn bounds() -> Config {
    Config {
        retention_records: RECORDS,
        retention_bytes: BYTES,
        retention_age: AGE,
        dedupe_window: WINDOW,
        dedupe_ids_per_user: IDS,
        usage_age: USAGE_AGE,
        usage_series: USAGE_SERIES,
        ..Config::default()
    }
}

/// A state of which only the head is known: enough to decide on events without a run.
fn at(head: Position) -> StreamState {
    StreamState::empty(head)
}

/// Lets time pass for as long as it takes until nothing of a user need be remembered: run memory and a bit.
async fn pass_a_day(engine: &dyn Engine, clock: &Clock) {
    for _ in 0..26 {
        clock.advance(Duration::from_secs(60 * 60));
        for _ in 0..MemoryEngine::turns() {
            engine.maintain().await;
        }
    }
}

/// `conformance!(engine, factory)` makes a test of each case, in a module of that name. `conformance!(each run)` calls
/// `run` with the name of each case and the case.
macro_rules! conformance {
    (tests $engine:ident $factory:expr; $($area:ident: $($case:ident)*;)*) => {
        mod $engine {
            $(mod $area { $(
                #[tokio::test]
                async fn $case() {
                    let (engine, clock, _held) = $factory();
                    $crate::engine_conformance::$area::$case(engine.clone(), clock).await;
                    engine.close().await;
                }
            )* })*
        }
    };
    (each $run:ident; $($area:ident: $($case:ident)*;)*) => {
        $($(
            $run(
                concat!(stringify!($area), "::", stringify!($case)),
                Box::new(|engine, clock| {
                    Box::pin($crate::engine_conformance::$area::$case(engine, clock))
                }),
            );
        )*)*
    };
    (each $run:ident) => {
        $crate::engine_conformance::conformance!(all each $run)
    };
    ($engine:ident, $factory:expr) => {
        $crate::engine_conformance::conformance!(all tests $engine $factory);
    };
    (all $($how:tt)*) => {
        $crate::engine_conformance::conformance! { $($how)*;
            append:
                records_come_back_in_order_and_offsets_strictly_increase
                offsets_within_a_commit_are_consecutive
                each_record_carries_the_offset_before_it
                a_commit_decided_on_an_older_head_is_told_exactly_what_it_missed
                the_expected_epoch_is_compared_too
                an_expected_offset_beyond_the_head_is_not_taken
                a_conflict_of_more_than_256_records_is_a_reload
                a_conflict_that_reaches_below_what_was_trimmed_is_a_reload
                a_refused_commit_leaves_nothing
                streams_do_not_see_each_other;
            load:
                a_stream_that_does_not_exist_has_a_head_and_nothing_else
                what_is_loaded_is_what_applying_the_records_makes
                a_run_can_be_asked_for_alone
                a_run_that_was_forgotten_begins_anew;
            read:
                a_page_begins_after_its_cursor
                a_page_is_bounded_in_records
                a_page_is_bounded_in_bytes_but_holds_one
                a_page_names_the_head_and_what_is_trimmed;
            watch:
                a_watcher_hears_every_later_append_in_order
                a_dropped_watch_hears_nothing_more
                a_watch_begun_amid_appends_misses_none_after_its_head;
            listing:
                runs_are_listed_from_the_one_that_started_last
                runs_that_started_at_once_are_listed_by_tenant_user_and_id
                every_filter_must_hold
                a_list_goes_on_after_any_place
                a_list_goes_on_whatever_starts_and_ends_meanwhile;
            keys:
                a_key_is_put_once
                a_key_expires
                a_key_is_replaced_only_from_the_expected_value
                replacing_renews_the_time_to_live
                keys_do_not_see_each_other;
            retention:
                the_oldest_records_go_beyond_the_number
                the_oldest_records_go_beyond_the_bytes
                records_go_by_age
                ids_are_remembered_longer_than_records
                ids_are_forgotten_by_age
                ids_are_forgotten_beyond_their_number
                an_evicted_stream_never_uses_an_offset_again
                a_resume_from_below_an_evicted_offset_sees_that_it_is_trimmed
                an_open_run_keeps_its_stream
                a_watcher_keeps_its_stream;
            runs:
                a_run_is_due_at_its_deadline_until_it_ends
                looking_again_holds_for_the_head_that_it_was_decided_on
                a_run_that_waited_is_due_no_later_than_its_deadline
                a_run_is_due_when_its_last_open_wait_expires
                open_waits_and_calls_of_one_id_are_kept_apart
                runs_above_one_that_ends_are_due_no_later_than_their_own_deadlines
                open_runs_are_told_with_the_head;
            usage:
                every_appended_draft_counts_once_in_its_series
                a_cost_is_added_up_as_it_was_recorded
                a_refused_commit_consumes_nothing
                usage_is_told_as_asked_for
                usage_outlives_its_events_until_the_day_is_forgotten
                too_many_series_keep_their_totals_by_tenant_model_and_day;
            race:
                writers_that_race_keep_one_order;
        }
    };
}

pub(crate) use conformance;
