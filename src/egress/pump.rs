//! A session's steps, for a connection that asks for the next when it has room.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Egress,
    control::Closing,
    session::{Session, Step},
};
use crate::{net::Activity, reason::Reason};

/// The steps of `session` until it or its reader ends: batches one after the other and, where the reader did not
/// leave, `Step::Close` at the end. `activity` is that of the connection, where it is the reader's alone.
pub(super) fn steps(
    egress: Arc<Egress>,
    session: Session,
    activity: Option<Arc<Activity>>,
) -> impl Stream<Item = Step> + Send + use<> {
    // One batch waits here and one is being sent: the rest stays in the log until there is room.
    let (batches, sent) = mpsc::channel(1);
    let (last, end) = oneshot::channel();
    tokio::spawn(run(egress, session, activity, batches, last));
    in_order(sent, end)
}

fn in_order(
    batches: mpsc::Receiver<Vec<Bytes>>,
    end: oneshot::Receiver<Closing>,
) -> impl Stream<Item = Step> + Send {
    let end = stream::once(end).filter_map(async |closing| closing.ok());
    ReceiverStream::new(batches)
        .map(Step::Send)
        .chain(end.map(Step::Close))
}

/// Carries `session` until it or the reader ends.
async fn run(
    egress: Arc<Egress>,
    mut session: Session,
    activity: Option<Arc<Activity>>,
    batches: mpsc::Sender<Vec<Bytes>>,
    last: oneshot::Sender<Closing>,
) {
    let ended = pump(&egress, &mut session, activity.as_deref(), &batches).await;
    // The reader is out before its client is told, so that it does not count against its own return.
    drop(session);
    egress.metrics.closed(ended.map(|closing| closing.reason));
    if let Some(closing) = ended {
        let _client_is_gone = last.send(closing);
    }
}

/// Hands batches over as fast as they are taken. `None`: the reader went away.
async fn pump(
    egress: &Egress,
    session: &mut Session,
    activity: Option<&Activity>,
    batches: &mpsc::Sender<Vec<Bytes>>,
) -> Option<Closing> {
    loop {
        let step = tokio::select! {
            biased;
            () = batches.closed() => return None,
            step = session.next() => step,
        };
        let frames = match step {
            Step::Send(frames) => frames,
            Step::Close(closing) => return Some(closing),
        };
        tokio::select! {
            sent = batches.send(frames) => sent.ok()?,
            closing = session.ended() => return Some(closing),
            () = stalled(activity, egress.config.write_stall) => {
                return Some(egress.closing(Reason::TooSlow));
            }
        }
    }
}

/// Waits until a batch that waits from now on has waited for too long.
async fn stalled(activity: Option<&Activity>, stall: Duration) {
    match activity {
        Some(activity) => activity.stalled(Instant::now(), stall).await,
        // Others share the connection: only this stream's own waiting tells.
        None => tokio::time::sleep(stall).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_comes_after_what_waits() {
        let (batches, sent) = mpsc::channel(1);
        let (last, end) = oneshot::channel();
        batches.send(vec![Bytes::from("a")]).await.unwrap();
        drop(batches);
        let closing = Closing {
            reason: Reason::Draining,
            reconnect_after: None,
        };
        last.send(closing).unwrap();
        let got: Vec<_> = in_order(sent, end).collect().await;
        let [Step::Send(frames), Step::Close(told)] = &got[..] else {
            panic!("{got:?}");
        };
        assert_eq!((&frames[..], told), (&[Bytes::from("a")][..], &closing));
    }

    #[tokio::test]
    async fn a_stream_whose_client_left_just_ends() {
        let (batches, sent) = mpsc::channel::<Vec<Bytes>>(1);
        let (last, end) = oneshot::channel::<Closing>();
        drop((batches, last));
        assert_eq!(in_order(sent, end).collect::<Vec<_>>().await.len(), 0);
    }
}
