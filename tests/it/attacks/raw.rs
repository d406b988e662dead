//! HTTP/2 by hand.

use bytes::Bytes;
use h2::{
    SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use tokio::net::TcpStream;

use crate::processes::server::Server;

/// A connection to the gRPC listener.
pub(super) struct Raw {
    requests: SendRequest<Bytes>,
    pings: h2::PingPong,
    authority: String,
}

/// A call whose body has not ended. Dropping it resets the stream.
pub(super) type Unfinished = (ResponseFuture, SendStream<Bytes>);

impl Raw {
    pub(super) async fn connect(server: &Server) -> Self {
        let authority = server.grpc.strip_prefix("http://").unwrap().to_owned();
        let tcp = TcpStream::connect(&authority).await.unwrap();
        let (requests, mut connection) = client::handshake(tcp).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        // It ends with the connection.
        tokio::spawn(connection);
        Self {
            requests,
            pings,
            authority,
        }
    }

    /// Calls `path` and sends `body`, without an end.
    pub(super) async fn call(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Unfinished {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let mut request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).unwrap();
        let (answer, mut stream) = requests.send_request(request, false).unwrap();
        // The server may have refused the call already.
        let _refused = stream.send_data(body, false);
        (answer, stream)
    }

    /// Waits until the server has read everything that was sent so far. False: it has closed the connection.
    pub(super) async fn read_by_server(&mut self) -> bool {
        self.pings.ping(h2::Ping::opaque()).await.is_ok()
    }

    /// Whether further calls can be made.
    pub(super) async fn is_open(&mut self) -> bool {
        self.requests.clone().ready().await.is_ok()
    }
}
