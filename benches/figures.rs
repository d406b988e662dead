//! What an event costs: emitted alone, in a batch of 100, and delivered to a WebSocket, each beside the bare building
//! block in the same run: a tonic handler that decodes the same calls and answers them, and a task for each socket that
//! writes the same bytes. CPU of the servers' processes only. Prints the table that the README shows.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "figures/bare.rs"]
mod bare;
#[path = "figures/delivered.rs"]
mod delivered;
#[path = "figures/emitted.rs"]
mod emitted;
mod load;
mod measured;
mod spread;

use std::process::Command;

use measured::Measured;
use spread::spread;

/// How often each row is measured.
const ROUNDS: usize = 7;

/// The argument that makes this program the bare server.
const BARE: &str = "bare-server";

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == BARE) {
        return bare::serve().await;
    }
    let program = std::env::current_exe().unwrap();
    let bare = Measured::start(Command::new(program).arg(BARE));
    let emitter = Measured::emitter([]);
    println!("CPU per event of the server's process, µs: median of {ROUNDS} (least to greatest)\n");
    println!("| | emitter | bare | ratio |\n|---|---|---|---|");
    let mut unary = emitted::Emitting::new(&emitter, &bare, 1);
    row("`Emit`", "a tonic handler", &mut unary).await;
    let mut batch = emitted::Emitting::new(&emitter, &bare, 100);
    row(
        "`EmitBatch` of 100, per event",
        "a tonic handler",
        &mut batch,
    )
    .await;
    for (per_write, name) in [
        (1, "delivered to a WebSocket, one at a time"),
        (100, "delivered to a WebSocket, 100 at a time"),
    ] {
        let mut delivering = delivered::Delivering::new(&emitter, &bare, per_write).await;
        row(name, "a socket's task", &mut delivering).await;
    }
}

/// One line of the table.
trait Pair {
    /// The microseconds of CPU per event of the two servers, measured in turn.
    async fn measure(&mut self) -> (f64, f64);
}

async fn row(name: &str, block: &str, pair: &mut impl Pair) {
    // The first warms up.
    pair.measure().await;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (with, without) = pair.measure().await;
        ours.push(with);
        theirs.push(without);
        ratios.push(with / without);
    }
    let shown = |figures| {
        let (median, least, greatest) = spread(figures);
        format!("{median:.2} ({least:.2} to {greatest:.2})")
    };
    println!(
        "| {name} | {} | {block}: {} | {} |",
        shown(ours),
        shown(theirs),
        shown(ratios)
    );
}
