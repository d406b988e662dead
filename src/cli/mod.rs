//! The commands of `emitter`.

mod ask;
mod check_config;
mod connections;
mod dev;
mod emit;
mod failure;
mod input;
mod logs;
mod render;
mod repair;
mod runs;
mod serve;
mod session;
mod sources;
mod table;
mod tail;
mod target;
mod text;
mod token;
mod usage;

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::Sources;
use failure::Failure;

/// One typed door in and one ordered stream out for the events of AI agents.
#[derive(Debug, Parser)]
#[command(
    name = "emitter",
    version,
    arg_required_else_help = true,
    after_help = "\
Try it out:
  emitter dev                     a service on this machine, no config needed
  emitter tail --user demo        in another terminal: what the user `demo` sees
  emitter emit --user demo --run r1 --type agent_started --agent researcher \\
    --message 'On it'
  emitter emit --user demo --run r1 --type agent_completed --message Done
  emitter runs show r1            what happened in it

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 64 a bad config."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Serve(serve::Serve),
    Emit(emit::Emit),
    Tail(tail::Tail),
    Runs(runs::Runs),
    Usage(usage::Usage),
    Connections(connections::Connections),
    Disconnect(connections::Disconnect),
    Sources(sources::Sources),
    Token(token::Token),
    CheckConfig(check_config::CheckConfig),
    Repair(repair::Repair),
}

/// The process's environment as a command sees it.
type Environment = Vec<(OsString, OsString)>;

/// Runs the command that `args` ask for, the program's name first, under the variables in `environment`.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let environment: Environment = environment.into_iter().collect();
    let parsed = Cli::command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well.
            let _nobody_listens = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let done = match cli.command {
        Command::Dev(dev) => dev.run(&environment),
        Command::Serve(serve) => serve.run(environment),
        Command::Emit(emit) => emit.run(&environment),
        Command::Tail(tail) => tail.run(&environment),
        Command::Runs(runs) => runs.run(&environment),
        Command::Usage(usage) => usage.run(&environment),
        Command::Connections(connections) => connections.run(&environment),
        Command::Disconnect(disconnect) => disconnect.run(&environment),
        Command::Sources(sources) => sources.run(&environment),
        Command::Token(token) => token.run(&environment),
        Command::CheckConfig(check) => check.run(environment),
        Command::Repair(repair) => repair.run(),
    };
    done.unwrap_or_else(Failure::told)
}

/// Where to listen. Each is also a config key and a variable, such as `EMITTER_GRPC_LISTEN`.
#[derive(Clone, Debug, Default, Args)]
struct Listen {
    /// Where agent services connect (gRPC) [default: 127.0.0.1:50051]; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS")]
    grpc_listen: Option<String>,
    /// Where browsers connect (WebSocket and SSE) [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Where operators connect (health and metrics) [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
}

/// Where to keep events.
#[derive(Clone, Debug, Default, Args)]
struct Storage {
    /// Keep events in this directory, through the end of the process and the machine
    #[arg(long, value_name = "DIR", env = "EMITTER_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Storage {
    /// Adds what was given to the flags of `sources`.
    fn add_to(&self, sources: &mut Sources) -> Result<(), Failure> {
        let Some(directory) = &self.data_dir else {
            return Ok(());
        };
        let Some(directory) = directory.to_str() else {
            return Err(Failure::Usage("--data-dir: needs a path in UTF-8".into()));
        };
        sources.flags.push(("engine.kind", "durable".to_owned()));
        sources
            .flags
            .push(("engine.data_dir", directory.to_owned()));
        Ok(())
    }
}

impl Listen {
    /// Adds what was given to the flags of `sources`.
    fn add_to(&self, sources: &mut Sources) {
        let given = [
            ("grpc_listen", &self.grpc_listen),
            ("http_listen", &self.http_listen),
            ("admin_listen", &self.admin_listen),
        ];
        for (key, text) in given {
            if let Some(text) = text {
                sources.flags.push((key, text.clone()));
            }
        }
    }
}

/// The variable of that name, if it is there and not empty.
fn variable(environment: &Environment, name: &str) -> Option<OsString> {
    let found = environment.iter().find(|(key, _)| key == name)?;
    Some(found.1.clone()).filter(|text| !text.is_empty())
}

/// Writes `text` and a line's end to standard output.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Writes `text` and a line's end to standard error.
fn warn(text: &str) {
    // Who does not read this reads nothing.
    let _nobody_listens = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::COMMAND_VARIABLES;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_variable_of_a_command_is_taken_for_a_setting() {
        for command in Cli::command().get_subcommands() {
            for variable in command.get_arguments().filter_map(|arg| arg.get_env()) {
                let variable = variable.to_str().unwrap();
                assert!(COMMAND_VARIABLES.contains(&variable), "{variable}");
            }
        }
    }

    #[test]
    fn every_command_teaches_by_example() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string);
            let example = format!("emitter {name}");
            assert!(help.is_some_and(|help| help.contains(&example)), "{name}");
        }
    }

    #[test]
    fn examples_fit_a_terminal() {
        // What is too wide is wrapped, and an example that is wrapped cannot be pasted.
        let root = Cli::command();
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let help = command.get_after_help().unwrap().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
