//! Which service a command speaks to, and as whom.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{Environment, Failure, session::Session};
use crate::{
    access::Scope,
    client::{Address, Credential},
};

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
    /// Over https, trust the certificates in this file (PEM) in place of the system's
    #[arg(long, value_name = "FILE", env = "EMITTER_CA_FILE")]
    ca_file: Option<PathBuf>,
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
    ) -> Result<(Address, Credential), Failure> {
        if let (Some(url), Some(token)) = (url, &self.token) {
            return Ok((self.address(url)?, Credential::fixed(token)));
        }
        let session = Session::find(self.session_file.as_deref(), environment)?;
        let url = url.map_or_else(|| format!("http://{}", of_session(&session)), str::to_owned);
        let address = self.address(&url)?;
        if let Some(token) = &self.token {
            return Ok((address, Credential::fixed(token)));
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
        Ok((address, Credential::renewed(renew)))
    }

    fn address(&self, url: &str) -> Result<Address, Failure> {
        let address = Address::new(url);
        let Some(path) = &self.ca_file else {
            return Ok(address);
        };
        let pem = fs::read(path)
            .map_err(|error| Failure::Failed(format!("--ca-file: {}: {error}", path.display())))?;
        Ok(address.trusting(pem))
    }
}
