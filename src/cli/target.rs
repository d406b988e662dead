//! Which service a command speaks to, and as whom.

use std::path::PathBuf;

use clap::Args;

use super::{Environment, Failure, session::Session};
use crate::{access::Scope, client::Credential};

/// As whom a command speaks to a service. A running `emitter dev` needs none of this.
#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// The session file of `emitter dev` [default: in the user's runtime or cache directory]
    #[arg(long, value_name = "PATH", env = "EMITTER_SESSION_FILE")]
    session_file: Option<PathBuf>,
    /// The token to show to a service other than `emitter dev`
    #[arg(
        long,
        value_name = "TOKEN",
        env = "EMITTER_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl Target {
    /// The address to connect to, and the credential: as given, else those of the dev session, whose tokens are made
    /// for `subject` with `scope`.
    pub(super) fn resolve(
        &self,
        url: Option<&str>,
        of_session: impl Fn(&Session) -> &str,
        (subject, scope): (Option<&str>, Scope),
        environment: &Environment,
    ) -> Result<(String, Credential), Failure> {
        if let (Some(url), Some(token)) = (url, &self.token) {
            return Ok((url.to_owned(), Credential::fixed(token)));
        }
        let session = Session::find(self.session_file.as_deref(), environment)?;
        let url = url.map_or_else(|| format!("http://{}", of_session(&session)), str::to_owned);
        if let Some(token) = &self.token {
            return Ok((url, Credential::fixed(token)));
        }
        let subject = subject
            .ok_or_else(|| Failure::Usage("--user is required, or a --token that says who".into()))?
            .to_owned();
        // Tried once here, so that it can fail where somebody sees it.
        let first = session.token(&subject, scope)?;
        let renew = move || {
            session
                .token(&subject, scope)
                .unwrap_or_else(|_| first.clone())
        };
        Ok((url, Credential::renewed(renew)))
    }
}
