use super::*;

fn parse(request: v1::ListRunsRequest) -> Result<RunQuery, Refusal> {
    let filters = Filters::of(&request, None);
    asked(request, None, &filters)
}

fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

#[test]
fn what_is_left_out_filters_nothing() {
    let query = parse(v1::ListRunsRequest::default()).unwrap();
    let want = RunQuery {
        limit: 100,
        ..RunQuery::default()
    };
    assert_eq!(query, want);
}

#[test]
fn every_filter_is_taken_over() {
    let request = v1::ListRunsRequest {
        tenant_id: "t".into(),
        user_id: "u".into(),
        thread_id: "th".into(),
        agent_name: "a".into(),
        states: vec![v1::RunState::Waiting.into(), v1::RunState::Cancelled.into()],
        started_after: at(1, 1_000_001),
        started_before: at(2, 0),
        page_size: 1_000,
        page_token: String::new(),
        parent_run_id: "p".into(),
    };
    let tenant = Tenant::new("t").ok();
    let filters = Filters::of(&request, tenant.as_ref());
    let query = asked(request, tenant.clone(), &filters).unwrap();
    let want = RunQuery {
        tenant,
        user: UserId::new("u").ok(),
        thread_id: ThreadId::new("th").ok(),
        agent_name: AgentName::new("a").ok(),
        parent_run_id: RunId::new("p").ok(),
        states: vec![RunState::Waiting, RunState::Cancelled],
        // No run that started in the millisecond before.
        started_from: Some(Timestamp::from_millis(1_002)),
        started_before: Some(Timestamp::from_millis(2_000)),
        after: None,
        limit: 1_000,
    };
    assert_eq!(query, want);
}

#[test]
fn every_field_at_fault_is_named() {
    let request = v1::ListRunsRequest {
        tenant_id: String::new(),
        user_id: "u\n".into(),
        thread_id: "x".repeat(129),
        agent_name: "\u{7}".into(),
        states: vec![v1::RunState::Running.into(), 0, 6, -1],
        started_after: at(0, 1_000_000_000),
        started_before: at(END_OF_TIME, 0),
        page_size: 1_001,
        page_token: "bm9uZQ".into(),
        ..Default::default()
    };
    let refusal = parse(request).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidRequest);
    let fields: Vec<_> = refusal.violations.iter().map(|it| &it.field).collect();
    let want = [
        "page_token",
        "user_id",
        "thread_id",
        "agent_name",
        "states[1]",
        "states[2]",
        "states[3]",
        "started_after",
        "started_before",
        "page_size",
    ];
    assert_eq!(fields, want, "{refusal}");
}

#[test]
fn moments_are_whole_milliseconds_from_1970_on() {
    let cases = [
        ((0, 0), Some(0)),
        ((1, 1), Some(1_001)),
        ((1, 999_000_001), Some(2_000)),
        ((-1, 0), Some(0)),
        ((-62_135_596_800, 0), Some(0)),
        ((-62_135_596_801, 0), None),
        ((0, -1), None),
        ((END_OF_TIME - 1, 999_999_999), Some(253_402_300_800_000)),
        ((END_OF_TIME, 0), None),
    ];
    for ((seconds, nanos), want) in cases {
        let asked = prost_types::Timestamp { seconds, nanos };
        let want = want.map(Timestamp::from_millis);
        assert_eq!(moment(&asked), want, "{seconds} {nanos}");
    }
}
