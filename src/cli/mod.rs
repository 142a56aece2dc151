//! The command line.

mod brake;
pub mod connect;
pub mod demo;
mod indexes;
pub mod load;
mod log;
mod serve;
pub mod watch;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

/// A WebSocket-first realtime server for kernel CI.
#[derive(Parser, Debug)]
#[command(name = "kernelci-live", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: crate::config::Config,
}

#[derive(Subcommand, Debug)]
#[allow(clippy::large_enum_variant)]
enum Command {
    /// Runs the server (the default).
    Serve(crate::config::Config),
    /// Shows which indexes the database has, lacks, and has without need.
    Indexes(crate::config::Config),
    /// Plays a real CI against a server, for dashboards, tests and trying out.
    Demo(demo::DemoArgs),
    /// Shows what happens on a server, as it happens.
    Watch(watch::WatchArgs),
    /// Loads a server, or one to compare with, and tells what it did in how much time and memory.
    Load(load::LoadArgs),
}

impl Cli {
    /// Reads the command line and the environment; ends the process with a sentence if something is wrong in them.
    pub fn from_command_line() -> Cli {
        let matches = without_empty_settings(Cli::command()).get_matches();
        check_addresses(&matches).unwrap_or_else(|error| error.exit());
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what the command line says.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            None => serve::run(self.serve).await,
            Some(Command::Serve(config)) => serve::run(config).await,
            Some(Command::Indexes(config)) => indexes::run(config).await,
            Some(Command::Demo(args)) => demo::run(args).await,
            Some(Command::Watch(args)) => watch::run(args).await,
            Some(Command::Load(args)) => load::run(args).await,
        }
    }
}

/// Fails if the address of a service stands on the command line with a password in it: everybody on the machine can read that.
fn check_addresses(matches: &ArgMatches) -> Result<(), clap::Error> {
    for (id, variable) in
        [("mongo_url", "MONGO_URL"), ("mongo_service", "MONGO_SERVICE"), ("redis_url", "REDIS_URL")]
    {
        let given = matches.try_get_one::<String>(id).ok().flatten();
        let has_password = given.is_some_and(|address| {
            let user = address.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
            user.is_some_and(|(user, _)| user.contains(':'))
        });
        if has_password && matches.value_source(id) == Some(ValueSource::CommandLine) {
            let flag = id.replace('_', "-");
            let detail = format!(
                "--{flag} has a password, which everybody on this machine can read there: give the address in {variable}"
            );
            return Err(Cli::command().error(clap::error::ErrorKind::InvalidValue, detail));
        }
    }
    matches.subcommand().map_or(Ok(()), |(_, matches)| check_addresses(matches))
}

/// `MONGO_URL=` in a container's environment means that it is not set.
fn without_empty_settings(command: clap::Command) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(without_empty_settings)
}
