//! Asks a service what it knows, over gRPC.

use std::time::Duration;

use tonic::{Request, Response, Status, transport::Channel};

use super::{Address, Credential, UrlError, grpc};
use crate::proto::v1::{
    CancelRunRequest, CancelRunResponse, DisconnectRequest, DisconnectResponse, GetRunRequest,
    GetRunResponse, GetUsageRequest, GetUsageResponse, ListConnectionsRequest,
    ListConnectionsResponse, ListRunsRequest, ListRunsResponse, ListSourceRefusalsRequest,
    ListSourceRefusalsResponse, Refusal, emitter_operator_client::EmitterOperatorClient,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is taken.
const ANSWER_BYTES: usize = 16 << 20;

/// Asks as an operator. Each call is made once: who asks sees why there is no answer.
#[derive(Clone)]
pub struct Operator {
    client: EmitterOperatorClient<Channel>,
    credential: Credential,
}

/// What was asked for, or why there is no answer. A refusal without a reason comes from the way to the service.
pub type Answer<T> = Result<T, Box<Refusal>>;

impl Operator {
    /// An operator that asks the gRPC port at `address`, such as `http://127.0.0.1:50051`. It connects when it is first
    /// used, inside a tokio runtime.
    ///
    /// # Errors
    /// When `address` is no such address.
    pub fn new(address: impl Into<Address>, credential: Credential) -> Result<Self, UrlError> {
        let client = EmitterOperatorClient::new(grpc::channel(&address.into())?);
        let client = client.max_decoding_message_size(ANSWER_BYTES);
        Ok(Self { client, credential })
    }

    /// A page of runs.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn list_runs(&self, request: ListRunsRequest) -> Answer<ListRunsResponse> {
        self.ask(request, async |mut client, request| {
            client.list_runs(request).await
        })
        .await
    }

    /// One run, whole.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get_run(&self, request: GetRunRequest) -> Answer<GetRunResponse> {
        self.ask(request, async |mut client, request| {
            client.get_run(request).await
        })
        .await
    }

    /// Usage, added up.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get_usage(&self, request: GetUsageRequest) -> Answer<GetUsageResponse> {
        self.ask(request, async |mut client, request| {
            client.get_usage(request).await
        })
        .await
    }

    /// Ends a run.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn cancel_run(&self, request: CancelRunRequest) -> Answer<CancelRunResponse> {
        self.ask(request, async |mut client, request| {
            client.cancel_run(request).await
        })
        .await
    }

    /// A page of the readers of one node.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn list_connections(
        &self,
        request: ListConnectionsRequest,
    ) -> Answer<ListConnectionsResponse> {
        self.ask(request, async |mut client, request| {
            client.list_connections(request).await
        })
        .await
    }

    /// Ends connections of one node.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn disconnect(&self, request: DisconnectRequest) -> Answer<DisconnectResponse> {
        self.ask(request, async |mut client, request| {
            client.disconnect(request).await
        })
        .await
    }

    /// The sources that one node refused because another owned the run.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn list_source_refusals(
        &self,
        request: ListSourceRefusalsRequest,
    ) -> Answer<ListSourceRefusalsResponse> {
        self.ask(request, async |mut client, request| {
            client.list_source_refusals(request).await
        })
        .await
    }

    async fn ask<Q, A>(
        &self,
        question: Q,
        call: impl AsyncFnOnce(
            EmitterOperatorClient<Channel>,
            Request<Q>,
        ) -> Result<Response<A>, Status>,
    ) -> Answer<A> {
        let answer = async {
            let request = grpc::request(question, &self.credential.token(), TIMEOUT)?;
            call(self.client.clone(), request).await
        };
        match answer.await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Box::new(grpc::refusal(&status))),
        }
    }
}
