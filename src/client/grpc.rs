//! What every gRPC client of the service needs.

use std::time::Duration;

use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{Address, UrlError};
use crate::{
    proto::v1::{FieldViolation, Refusal},
    reason::DOMAIN,
};

/// A channel to the gRPC port at `address`, which connects when it is first used.
pub(super) fn channel(address: &Address) -> Result<Channel, UrlError> {
    let uri = address.with_scheme("http", "https")?;
    let bad = |error: tonic::transport::Error| address.error(error.to_string());
    let mut endpoint = Endpoint::from_shared(uri).map_err(bad)?;
    if let Some(tls) = address.grpc_tls()? {
        endpoint = endpoint.tls_config(tls).map_err(bad)?;
    }
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    Ok(endpoint.connect_lazy())
}

/// `message` under `token`, to be answered within `timeout`.
pub(super) fn request<T>(message: T, token: &str, timeout: Duration) -> Result<Request<T>, Status> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Status::unauthenticated("the token has characters that no token has"))?;
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value);
    request.set_timeout(timeout);
    Ok(request)
}

/// The same content as a refusal in a batch. Only the service's own statuses have a reason.
pub(super) fn refusal(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let violations = details.bad_request().map(|bad| &bad.field_violations);
    Refusal {
        code: status.code().into(),
        reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
        message: status.message().to_owned(),
        violations: violations
            .into_iter()
            .flatten()
            .map(|violation| FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            })
            .collect(),
        retry_after: details
            .retry_info()
            .and_then(|info| info.retry_delay)
            .and_then(|delay| delay.try_into().ok()),
        metadata: info
            .map(|info| info.metadata.clone().into_iter().collect())
            .unwrap_or_default(),
    }
}
