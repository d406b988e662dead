//! The gRPC surface: lets operators in, and hands their calls to the files that answer them.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::{Request, Response, Status};

use crate::{
    access::{Principal, Scope},
    calls::admitted,
    engine::{Engine, EngineError},
    event::Tenant,
    fanout::Hub,
    proto::v1::{
        self,
        emitter_operator_server::{EmitterOperator, EmitterOperatorServer},
    },
    reason::{Reason, Refusal, to_status},
    sequencer::Sequencer,
};

use super::{cancel, connections, refused_sources, runs, usage};

/// Takes the calls of `emitter.v1.EmitterOperator`.
pub struct OperatorService {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) hub: Arc<Hub>,
}

/// Which tenants an operator asks for, of those that it may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tenants {
    /// This one.
    One(Tenant),
    /// All of them.
    Every,
}

impl Tenants {
    /// The tenants that a request of `operator` is about that states `tenant_id`.
    ///
    /// # Errors
    /// `TENANT_FORBIDDEN`, `INVALID_REQUEST`.
    pub(super) fn asked(operator: &Principal, tenant_id: &str) -> Result<Self, Refusal> {
        let every = operator.is_of_every_tenant();
        if tenant_id.is_empty() {
            return Ok(match every {
                true => Self::Every,
                false => Self::One(operator.tenant.clone()),
            });
        }
        let asked = Tenant::new(tenant_id).map_err(|error| {
            let rule = error.to_string();
            Refusal::invalid_field(Reason::InvalidRequest, "tenant_id", rule)
        })?;
        if !every && asked != operator.tenant {
            return Err(Refusal::new(
                Reason::TenantForbidden,
                "the credential is of another tenant",
            ));
        }
        Ok(Self::One(asked))
    }

    /// The same where one tenant must be meant.
    ///
    /// # Errors
    /// `TENANT_FORBIDDEN`, `INVALID_REQUEST`.
    pub(super) fn one(operator: &Principal, tenant_id: &str) -> Result<Tenant, Refusal> {
        match Self::asked(operator, tenant_id)? {
            Self::One(tenant) => Ok(tenant),
            Self::Every => Err(Refusal::invalid_field(
                Reason::InvalidRequest,
                "tenant_id",
                "is required",
            )),
        }
    }

    /// The only one, or `None` for all of them.
    pub(super) fn only(self) -> Option<Tenant> {
        match self {
            Self::One(tenant) => Some(tenant),
            Self::Every => None,
        }
    }

    /// Whether `tenant` is among them.
    pub(super) fn contain(&self, tenant: &Tenant) -> bool {
        match self {
            Self::One(one) => one == tenant,
            Self::Every => true,
        }
    }
}

/// What is answered while the engine does not answer.
pub(super) fn unavailable(error: EngineError) -> Refusal {
    tracing::debug!(%error, "an operator's call failed");
    Refusal::new(Reason::EngineUnavailable, "the engine cannot be reached")
}

impl OperatorService {
    /// A service that shows what `engine`, `sequencer` and `hub` know.
    pub fn new(engine: Arc<dyn Engine>, sequencer: Arc<Sequencer>, hub: Arc<Hub>) -> Self {
        Self {
            engine,
            sequencer,
            hub,
        }
    }

    /// The service as a tonic server takes it.
    pub fn into_server(self) -> EmitterOperatorServer<Self> {
        EmitterOperatorServer::new(self)
    }

    async fn answer<Q, A>(
        &self,
        request: Request<Q>,
        handle: impl AsyncFnOnce(&Self, &Principal, Q) -> Result<A, Refusal>,
    ) -> Result<Response<A>, Status> {
        let answered = async {
            let operator = admitted(&request)?;
            operator.require(Scope::Operate)?;
            handle(self, &operator, request.into_inner()).await
        };
        let answered = answered.await.map_err(|refusal| to_status(&refusal));
        answered.map(Response::new)
    }
}

#[async_trait]
impl EmitterOperator for OperatorService {
    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        self.answer(request, runs::list).await
    }

    async fn get_run(
        &self,
        request: Request<v1::GetRunRequest>,
    ) -> Result<Response<v1::GetRunResponse>, Status> {
        self.answer(request, runs::get).await
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        self.answer(request, cancel::cancel).await
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        self.answer(request, usage::get).await
    }

    async fn list_source_refusals(
        &self,
        request: Request<v1::ListSourceRefusalsRequest>,
    ) -> Result<Response<v1::ListSourceRefusalsResponse>, Status> {
        self.answer(request, refused_sources::list).await
    }

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<v1::ListConnectionsResponse>, Status> {
        self.answer(request, connections::list).await
    }

    async fn disconnect(
        &self,
        request: Request<v1::DisconnectRequest>,
    ) -> Result<Response<v1::DisconnectResponse>, Status> {
        self.answer(request, connections::disconnect).await
    }
}
