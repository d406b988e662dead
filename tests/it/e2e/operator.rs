//! What operators see of runs, over gRPC as anybody's client asks.

mod cancel;
mod list;
mod run;
mod tenants;

use emitter::{
    clock::Timestamp,
    proto::v1::{
        self, GetRunRequest, GetRunResponse, ListRunsRequest, ListRunsResponse,
        emitter_operator_client::EmitterOperatorClient, event::Payload,
    },
};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

use super::{server::Server, wire};

/// An operator with a token.
struct Operator {
    client: EmitterOperatorClient<Channel>,
    token: String,
}

impl Operator {
    /// One of the tenant `default`.
    async fn of(server: &Server) -> Self {
        Self::with(server, server.token("ops", "operate")).await
    }

    /// One of another tenant.
    async fn of_tenant(server: &Server, tenant: &str) -> Self {
        Self::with(server, server.token_in(tenant, "ops", "operate")).await
    }

    async fn with(server: &Server, token: String) -> Self {
        let url = format!("http://{}", server.grpc);
        let client = EmitterOperatorClient::connect(url).await.unwrap();
        Self { client, token }
    }

    async fn list(&self, request: ListRunsRequest) -> Result<ListRunsResponse, Status> {
        let request = wire::with_token(&self.token, request);
        let answer = self.client.clone().list_runs(request).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn get(&self, tenant: &str, run: &str) -> Result<GetRunResponse, Status> {
        let request = GetRunRequest {
            tenant_id: tenant.into(),
            run_id: run.into(),
        };
        let request = wire::with_token(&self.token, request);
        let answer = self.client.clone().get_run(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// The ids of the runs that answer `request`.
    async fn ids(&self, request: ListRunsRequest) -> Vec<String> {
        ids(&self.list(request).await.unwrap())
    }
}

fn ids(page: &ListRunsResponse) -> Vec<String> {
    page.runs.iter().map(|run| run.run_id.clone()).collect()
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().expect("ErrorInfo").reason.clone()
}

/// An event of `run` with an id of its own.
fn event(user: &str, run: &str, id: &str, payload: Payload) -> v1::Event {
    wire::event(user, run, &format!("{run}-{id}"), payload)
}

fn completed() -> Payload {
    Payload::AgentCompleted(v1::AgentCompleted::default())
}

fn at(time: Timestamp) -> Option<prost_types::Timestamp> {
    Some(time.into())
}
