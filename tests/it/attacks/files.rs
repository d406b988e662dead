//! Attack 4: idle connections that take up the file descriptors.

use tokio::net::{TcpSocket, TcpStream};

use super::bystander::Bystander;
use crate::processes::server::Server;

/// Connections from each of two addresses.
const IDLE: usize = 300;

const LIMITS: [&str; 4] = [
    "sh",
    "-c",
    "ulimit -Sn 128; ulimit -Hn 1024; exec \"$@\"",
    "sh",
];

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_descriptors_for_operators_and_the_store() {
    // More than half of a limit of 1,024 goes to connections; the addresses may have 300 each.
    let toml = "[engine]\nkind = \"durable\"\ndata_dir = \"{data}\"\n\
                [limits]\nhandshake = \"10m\"\n";
    let server = Server::start_under("attacked", toml, &LIMITS).await;
    let said = server.logged();
    assert!(said.contains("limits.connections is lowered"), "{said}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let raised = files.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(raised, Some("1024"), "{limits}");

    let mut bystander = Bystander::start(&server).await;
    let mut idle: Vec<TcpStream> = Vec::new();
    for address in ["127.0.0.2:0", "127.0.0.3:0"] {
        for n in 0..IDLE {
            let to = [&server.grpc, &server.http][n % 2];
            let to = to.strip_prefix("http://").unwrap().parse().unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(address.parse().unwrap()).unwrap();
            idle.push(socket.connect(to).await.unwrap());
        }
    }
    // Connections over the bound are closed at once.
    let refused = "emitter_connections_refused_total";
    while server.metric(refused).await == 0.0 {
        bystander.more(1).await;
    }
    bystander.more(50).await;
    for path in ["/healthz", "/readyz"] {
        let (status, body) = server.admin(path).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let (open, refused) = (open.count(), server.metric(refused).await);
    let seen = bystander.finish().await;
    println!(
        "attack 4, {} idle connections with a limit of 1,024: {open} descriptors open, {refused} connections refused; \
         bystander {seen:?}",
        2 * IDLE
    );
    let said = server.logged();
    assert!(!said.contains("cannot accept"), "{said}");
    drop(idle);
}
