//! How an operator's command reaches the service.

use clap::Args;
use tokio::runtime;

use super::{Environment, Failure, target::Target, text::plain};
use crate::{
    access::Scope,
    client::{Answer, Operator},
};

/// What every command of an operator takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Ask {
    /// The tenant, for a token of the tenant `*` [default: the token's]
    #[arg(long)]
    pub(super) tenant: Option<String>,
    /// Print JSON
    #[arg(long, env = "EMITTER_JSON")]
    pub(super) json: bool,
    /// The service's gRPC address, such as http://127.0.0.1:50051 [default: that of `emitter dev`]
    #[arg(long, value_name = "URL", env = "EMITTER_GRPC")]
    grpc: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Ask {
    /// What `ask` makes of the service's answers.
    pub(super) fn of_service<T>(
        &self,
        environment: &Environment,
        ask: impl AsyncFnOnce(Operator) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (address, credential) = self.target.resolve(
            self.grpc.as_deref(),
            |session| &session.grpc,
            (Some("emitter-cli"), Scope::Operate),
            environment,
        )?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let operator = Operator::new(address, credential)?;
            ask(operator).await
        })
    }

    /// The tenant as a request states it.
    pub(super) fn tenant_id(&self) -> String {
        self.tenant.clone().unwrap_or_default()
    }
}

/// The answer, or the failure that a person is told.
pub(super) fn answered<T>(answer: Answer<T>) -> Result<T, Failure> {
    answer.map_err(|refusal| {
        let message = plain(&refusal.message);
        Failure::Failed(match refusal.reason.as_str() {
            "" => message.into_owned(),
            reason => format!("{}: {message}", plain(reason)),
        })
    })
}
