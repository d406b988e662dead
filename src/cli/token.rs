//! `emitter token`.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{Environment, Failure, say, session::Session};
use crate::{
    access::{self, Grant, SECRET_BYTES, Scope},
    clock::Clock,
    event::{Tenant, UserId},
};

/// Print a token
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter token --sub demo --scope subscribe
      a token for `emitter dev` with which the user `demo` reads their stream
  emitter token --sub billing-agent --scope emit --users alice,bob --ttl 15m
      one that may emit, but only to these two
  emitter token --issuer platform --secret-file secret --sub svc --scope emit
      one for a service whose config names this issuer and secret")]
pub(super) struct Token {
    /// Whose token: the user who reads, or the name of the producer
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// What it may be used for; can be given several times
    #[arg(long, required = true, value_enum)]
    scope: Vec<ScopeName>,
    /// The tenant
    #[arg(long, default_value = "default")]
    tenant: String,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// The only users that it may emit to, separated by commas [default: all of the tenant]
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    users: Option<Vec<String>>,
    /// Who issues it, as the service's config has it; with --secret-file
    #[arg(long, env = "EMITTER_ISSUER", requires = "secret_file")]
    issuer: Option<String>,
    /// The file with the service's secret; with --issuer
    #[arg(long, value_name = "FILE", requires = "issuer")]
    secret_file: Option<PathBuf>,
    /// The session file of `emitter dev` [default: in the user's runtime or cache directory]
    #[arg(long, value_name = "PATH", env = "EMITTER_SESSION_FILE")]
    session_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeName {
    /// Emit events
    Emit,
    /// Read one's own stream
    Subscribe,
    /// Operate the service, and read any stream of the tenant over gRPC
    Operate,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Emit => Self::Emit,
            ScopeName::Subscribe => Self::Subscribe,
            ScopeName::Operate => Self::Operate,
        }
    }
}

impl Token {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let token = access::mint(&self.access(environment)?, &self.grant(&Clock::system())?);
        say(&token.map_err(|error| Failure::Failed(error.to_string()))?)?;
        Ok(ExitCode::SUCCESS)
    }

    fn grant(&self, clock: &Clock) -> Result<Grant, Failure> {
        let wrong = |flag: &str, problem: &dyn std::fmt::Display| {
            Failure::Usage(format!("--{flag}: the name {problem}"))
        };
        UserId::new(&self.sub).map_err(|problem| wrong("sub", &problem))?;
        Tenant::new(&self.tenant).map_err(|problem| wrong("tenant", &problem))?;
        for user in self.users.iter().flatten() {
            UserId::new(user).map_err(|problem| wrong("users", &problem))?;
        }
        let scopes = self.scope.iter().copied().map(Scope::from);
        Ok(Grant {
            tenant: Some(self.tenant.clone()),
            users: self.users.clone(),
            ..Grant::new(&self.sub, scopes, clock.now() + self.ttl)
        })
    }

    fn access(&self, environment: &Environment) -> Result<access::Config, Failure> {
        let (Some(issuer), Some(path)) = (&self.issuer, &self.secret_file) else {
            let session = Session::find(self.session_file.as_deref(), environment)?;
            return Ok(session.access());
        };
        let mut secret = fs::read(path)
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        secret.truncate(access::trim_newline(&secret).len());
        if secret.len() < SECRET_BYTES {
            let problem = format!(
                "{}: the secret is shorter than {SECRET_BYTES} bytes",
                path.display()
            );
            return Err(Failure::Usage(problem));
        }
        Ok(access::Config {
            issuer: issuer.clone(),
            secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{access::Authenticator, clock::Timestamp};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        token: Token,
    }

    fn parse(args: &str) -> Result<Token, clap::Error> {
        let args = std::iter::once("token").chain(args.split(' '));
        Command::try_parse_from(args).map(|command| command.token)
    }

    #[test]
    fn flags_become_claims() {
        let token =
            parse("--sub svc --scope emit --scope operate --ttl 90s --users a,b --tenant t")
                .unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let config = access::Config {
            issuer: "i".into(),
            secret: vec![7; 32],
        };
        let text = access::mint(&config, &token.grant(&clock).unwrap()).unwrap();
        let principal = Authenticator::new(&config, clock).verify(&text).unwrap();
        assert_eq!(principal.subject.as_str(), "svc");
        assert_eq!(principal.tenant.as_str(), "t");
        assert!(principal.scopes.iter().eq(&[Scope::Emit, Scope::Operate]));
        assert_eq!(principal.users.as_ref().unwrap().len(), 2);
        assert_eq!(principal.expires_at, Timestamp::from_millis(1_090_000));
    }

    #[test]
    fn wrong_usage_is_told() {
        for args in [
            "--sub svc",
            "--scope emit",
            "--sub svc --scope all",
            "--sub svc --scope emit --issuer x",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
        let long = "x".repeat(129);
        let token = parse(&format!("--sub {long} --scope emit")).unwrap();
        assert!(matches!(
            token.grant(&Clock::system()),
            Err(Failure::Usage(_))
        ));
    }
}
