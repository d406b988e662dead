//! Who reads, on this node, and what their clients acknowledged.

use std::sync::Arc;

use crate::{
    access::Principal,
    engine::EngineError,
    event::{Position, StreamKey, UserId},
    fanout::{Ack, Connection, Identity, Transport},
    proto::v1,
    reason::{Reason, Refusal},
};

use super::{OperatorService, grpc::Tenants, refused_sources::page_size};

/// How many are listed where the request does not say, and at most.
const PAGE: (usize, usize) = (100, 1_000);

/// Lists connections, in the order of their ids. A page's token is the last id on it.
pub(super) async fn list(
    service: &OperatorService,
    operator: &Principal,
    request: v1::ListConnectionsRequest,
) -> Result<v1::ListConnectionsResponse, Refusal> {
    let tenants = Tenants::asked(operator, &request.tenant_id)?;
    let user = user(&request.user_id)?;
    let most = page_size(request.page_size, PAGE)?;
    let wanted = |identity: &Identity| {
        let stream = &identity.stream;
        tenants.contain(stream.tenant()) && user.as_ref().is_none_or(|user| stream.user() == user)
    };
    let readers = service.hub.readers();
    let mut found = readers.list(&request.page_token, most + 1, wanted);
    let more = found.len() > most;
    found.truncate(most);
    let last = found.last().filter(|_| more);
    Ok(v1::ListConnectionsResponse {
        next_page_token: last
            .map_or("", |last| &last.identity.connection_id)
            .to_owned(),
        connections: found.iter().map(connection).collect(),
    })
}

/// Ends connections.
pub(super) async fn disconnect(
    service: &OperatorService,
    operator: &Principal,
    request: v1::DisconnectRequest,
) -> Result<v1::DisconnectResponse, Refusal> {
    let tenant = Tenants::one(operator, &request.tenant_id)?;
    let stream = user(&request.user_id)?.map(|user| StreamKey::new(tenant.clone(), user));
    let readers = service.hub.readers();
    let meant = match (&stream, request.connection_id.as_str()) {
        (None, "") => {
            let rule = "is required, or a `connection_id`";
            return Err(Refusal::invalid_field(
                Reason::InvalidRequest,
                "user_id",
                rule,
            ));
        }
        (Some(stream), "") => readers.of(stream),
        (_, connection_id) => readers.find(connection_id).into_iter().collect(),
    };
    let ended = meant.iter().filter(|connection| {
        let of = &connection.identity.stream;
        // Another tenant's connection is none that this operator knows.
        let known = *of.tenant() == tenant && stream.as_ref().is_none_or(|stream| stream == of);
        known && connection.end(Reason::Disconnected)
    });
    Ok(v1::DisconnectResponse {
        disconnected_count: u32::try_from(ended.count()).unwrap_or(u32::MAX),
    })
}

/// Who got what is stored of `stream` up to `last`, the position of a run's last event.
///
/// # Errors
/// When the engine cannot be reached.
pub(super) async fn delivery(
    service: &OperatorService,
    stream: &StreamKey,
    last: Position,
) -> Result<v1::Delivery, EngineError> {
    let acks = service.hub.acks().of(stream).await?;
    let connections = service.hub.readers().of(stream);
    Ok(v1::Delivery {
        stored_up_to: Some(last.into()),
        connections: connections.iter().map(connection).collect(),
        acknowledgements: acks.iter().map(|ack| acknowledgement(ack, last)).collect(),
    })
}

fn user(user_id: &str) -> Result<Option<UserId>, Refusal> {
    if user_id.is_empty() {
        return Ok(None);
    }
    let user = UserId::new(user_id).map_err(|error| {
        Refusal::invalid_field(Reason::InvalidRequest, "user_id", error.to_string())
    });
    user.map(Some)
}

fn connection(connection: &Arc<Connection>) -> v1::Connection {
    let Identity {
        connection_id,
        stream,
        client_id,
        transport,
        connected_at,
    } = &connection.identity;
    let transport = match transport {
        Transport::WebSocket => v1::Transport::Websocket,
        Transport::Sse => v1::Transport::Sse,
        Transport::Grpc => v1::Transport::Grpc,
    };
    v1::Connection {
        connection_id: connection_id.to_string(),
        tenant_id: stream.tenant().as_str().to_owned(),
        user_id: stream.user().as_str().to_owned(),
        client_id: client_id.as_ref().map_or("", |id| id.as_str()).to_owned(),
        transport: transport.into(),
        connected_at: Some((*connected_at).into()),
        position: connection.position().map(Into::into),
    }
}

fn acknowledgement(ack: &Ack, last: Position) -> v1::Acknowledgement {
    let Position { epoch, offset } = ack.position;
    v1::Acknowledgement {
        client_id: ack.client_id.as_str().to_owned(),
        position: Some(ack.position.into()),
        acknowledged_at: Some(ack.at.into()),
        covers_run: epoch == last.epoch && offset >= last.offset,
    }
}
