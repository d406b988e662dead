//! WebSocket handshakes that are refused, and how browsers and others are told.

use tokio_tungstenite::tungstenite::Error;

use super::{
    server::Server,
    wire::{Came, Socket},
};

#[tokio::test]
async fn one_user_has_at_most_so_many_readers() {
    let server = Server::start_with(|settings| {
        settings.limits.connections_per_user = 3;
        settings.origins = vec!["https://app".into()];
    })
    .await;
    let token = server.token("alice", "subscribe");
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Socket::connect(server.http, &token, "").await);
    }
    let bearer = ("authorization", format!("Bearer {token}"));
    match Socket::open(server.http, "", std::slice::from_ref(&bearer)).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 429),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a fourth one connected"),
    }
    let browser = [bearer, ("origin", "https://app".into())];
    let mut refused = Socket::open(server.http, "", &browser).await.unwrap();
    assert_eq!(refused.closed().await, 4006);
    // Another user is not touched, and a place that is given back can be taken.
    let other = server.token("bob", "subscribe");
    Socket::connect(server.http, &other, "")
        .await
        .frame_of("connection_caught_up")
        .await;
    let mut leaving = open.pop().unwrap();
    leaving.0.close(None).await.unwrap();
    while !matches!(leaving.next().await, Came::Ended | Came::Closed(_)) {}
    Socket::connect(server.http, &token, "")
        .await
        .frame_of("connection_established")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_with_the_code() {
    let server = Server::start_with(|settings| settings.origins = vec!["https://app".into()]).await;
    let token = server.token("alice", "subscribe");
    let headers = |origin: &str| {
        [
            ("authorization", format!("Bearer {token}")),
            ("origin", origin.to_owned()),
        ]
    };
    for origin in [
        "https://evil",
        "https://app.evil",
        "https://app:8443",
        "null",
    ] {
        let mut socket = Socket::open(server.http, "", &headers(origin))
            .await
            .unwrap();
        assert_eq!(socket.closed().await, 4505, "{origin}");
    }
    let mut socket = Socket::open(server.http, "", &headers("https://app"))
        .await
        .unwrap();
    socket.frame_of("connection_caught_up").await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_4501_for_a_browser_and_400_for_others() {
    let server = Server::start_with(|settings| settings.origins = vec!["https://app".into()]).await;
    let token = server.token("alice", "subscribe");
    let bearer = ("authorization", format!("Bearer {token}"));
    for query in [
        "after=00000000000000ab-1&from=head",
        "from=yesterday",
        "after=1",
        "types=A",
        "join=maybe",
    ] {
        match Socket::open(server.http, query, std::slice::from_ref(&bearer)).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 400, "?{query}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("?{query} connected"),
        }
        let browser = [bearer.clone(), ("origin", "https://app".into())];
        let mut socket = Socket::open(server.http, query, &browser).await.unwrap();
        assert_eq!(socket.closed().await, 4501, "?{query}");
    }
    server.stop().await;
}
