//! What operators are told of runs, compared with the events of the runs.

use std::collections::HashMap;

use emitter::{
    client::{Answer, Operator},
    proto::v1::{GetRunRequest, ListRunsRequest, Run, RunState},
};

use super::{
    ledger::{Ledger, Left, is_passing},
    reading::replay,
    server::credential,
    tools::until,
};

/// Every run that is known at `node`, by its id.
pub(crate) async fn listed(node: &str) -> HashMap<String, Run> {
    let operator = Operator::new(node, credential("operator", "operate")).unwrap();
    let mut all = HashMap::new();
    let mut page_token = String::new();
    loop {
        let request = ListRunsRequest {
            page_size: 1000,
            page_token,
            ..ListRunsRequest::default()
        };
        let page = answered(async || operator.list_runs(request.clone()).await).await;
        for run in page.runs {
            let before = all.insert(run.run_id.clone(), run);
            assert!(before.is_none(), "listed twice: {before:?}");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// What is answered, asked again where the service only could not answer then.
async fn answered<T>(mut ask: impl AsyncFnMut() -> Answer<T>) -> T {
    let mut answer = None;
    until("an operator is answered", async || {
        answer = match ask().await {
            Err(refusal) if is_passing(&refusal) => None,
            answer => Some(answer.expect("an answer")),
        };
        answer.is_some()
    })
    .await;
    answer.unwrap()
}

/// `ListRuns` and `GetRun` at `node` agree with the retained events of every user of the ledger.
pub(crate) async fn agree_with_events(ledger: &Ledger, node: &str) {
    let listed = listed(node).await;
    let mut counted: HashMap<String, (u64, bool)> = HashMap::new();
    let (users, lefts) = {
        let book = ledger.book();
        let users: Vec<String> = book
            .events
            .values()
            .map(|entry| entry.user.clone())
            .collect();
        let lefts = book.runs.iter().map(|(id, run)| (id.clone(), run.left));
        (users, lefts.collect::<HashMap<_, _>>())
    };
    for user in users.into_iter().collect::<std::collections::BTreeSet<_>>() {
        for seen in replay(node, &user).await {
            let (events, ended) = counted.entry(seen.run).or_default();
            *events = seen.run_sequence;
            *ended |= seen.ends;
        }
    }
    assert!(!counted.is_empty());
    for (id, (events, ended)) in &counted {
        let run = listed.get(id);
        let run = run.unwrap_or_else(|| panic!("{id} has {events} events and is not listed"));
        let is_open = matches!(run.state(), RunState::Running | RunState::Waiting);
        assert_eq!((run.run_sequence, !is_open), (*events, *ended), "{run:?}");
        let left = lefts.get(id).copied();
        assert!(
            *ended || left != Some(Left::Ended),
            "{id}: {left:?}, {run:?}"
        );
    }
    // A few of them whole.
    let operator = Operator::new(node, credential("operator", "operate")).unwrap();
    for (id, (events, _)) in counted.iter().take(20) {
        let request = GetRunRequest {
            run_id: id.clone(),
            ..GetRunRequest::default()
        };
        let whole = answered(async || operator.get_run(request.clone()).await).await;
        let sequences: Vec<u64> = whole
            .timeline
            .iter()
            .map(|item| item.run_sequence)
            .collect();
        let want: Vec<u64> = (1..=*events).collect();
        assert_eq!(sequences, want, "{id}");
    }
}
