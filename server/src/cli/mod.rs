//! The command line: what can be asked of `petrel`, and which exit code answers it.
//!
//! `up` and `serve` start the server; `check` reads files and needs none; all others talk to a running server over HTTP.
//! Tables are for people, `--json` for programs.

mod backup;
mod check;
mod client;
mod connection;
mod eval;
mod import;
mod moment;
mod progress;
mod show;
mod table;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::series::Timestamp;

pub use backup::{backup, restore};
pub use check::check;
pub use client::ask;
pub use eval::{Eval, eval};
pub use import::import;
pub use verify::{repair, verify};

/// Exit codes of all commands.
pub mod exit {
    /// Done, or the answer is yes.
    pub const DONE: u8 = 0;
    /// The answer is no: a check found problems, a run was not found, an evacuation is refused.
    pub const NO: u8 = 1;
    /// Wrong use of the command line or of a config file.
    pub const WRONG_USE: u8 = 2;
    /// The server could not be reached.
    pub const UNREACHED: u8 = 3;
}

/// Petrel watches a fleet of virtualization hosts, sees trouble before it comes, and moves work out of the way.
#[derive(Debug, Parser)]
#[command(name = "petrel", version)]
pub struct Cli {
    /// What to do; without a command, `up`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Server and agent on this machine, embedded store, no config needed
    Up(UpArgs),
    /// The server alone, for a fleet of agents
    Serve(ServeArgs),
    /// Check config, rule and runbook files, with positions, without starting anything
    Check {
        /// Files to check; their kind is told from what they contain
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Evaluate PromQL
    Query(QueryArgs),
    /// Alerts, worst first
    Alerts(ServerArgs),
    /// Hosts with their verdicts; say what duty one has
    Hosts(HostsArgs),
    /// What runs out when
    Outlooks(ServerArgs),
    /// Predictions and what became of them
    Ledger(ServerArgs),
    /// Log lines that hosts sent whole, latest last
    Logs(LogsArgs),
    /// Runs of runbooks: list them, show one, say yes or no to one
    Runs(RunsArgs),
    /// Show what an evacuation of a host would do, or why it is refused
    Plan {
        /// What to plan
        #[command(subcommand)]
        plan: Plan,
    },
    /// Stop all actions at once, or let them go on
    Hold(HoldArgs),
    /// Run models on files, without a server
    Eval {
        /// Which model
        #[command(subcommand)]
        eval: Eval,
    },
    /// Everything a running server keeps, as one file
    Backup(BackupArgs),
    /// Put a backup into a data directory that no server uses; everything is held until `petrel hold off`
    Restore(RestoreArgs),
    /// Take over samples from a file in Prometheus or OpenMetrics text, or from a running Prometheus
    Import(ImportArgs),
    /// Read every byte of a data directory and say what is damaged; changes nothing
    Verify(VerifyArgs),
    /// Rebuild what is damaged from what can be read, keep the originals aside, and say what is lost
    Repair(RepairArgs),
}

/// Options of `petrel up`.
#[derive(Debug, Args, Default)]
pub struct UpArgs {
    /// Where to keep everything [default: ~/.local/share/petrel, or /var/lib/petrel for root]
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// A config file, as for `serve`
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Address and port of console and API [default: 127.0.0.1:9780]
    #[arg(long)]
    pub listen: Option<String>,
}

/// Options of `petrel serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The config file; without one, defaults
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where to keep everything
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Address and port of console and API [default: 127.0.0.1:9780]
    #[arg(long)]
    pub listen: Option<String>,
    /// How long samples are kept, for example 15d; `off` keeps and takes samples of any age
    #[arg(long)]
    pub retention: Option<String>,
}

/// Where commands look for the server, and where it listens, unless told otherwise.
pub const SERVER_DEFAULT: &str = "http://127.0.0.1:9780";

/// How to reach the server.
#[derive(Debug, Args, Clone)]
pub struct ServerArgs {
    /// The server's address
    #[arg(long, default_value = SERVER_DEFAULT, global = true)]
    pub server: String,
    /// File with the user's token, where the server asks for one
    #[arg(long, global = true)]
    pub token_file: Option<PathBuf>,
    /// Certificate of a private authority that signed the server's
    #[arg(long, global = true)]
    pub ca_file: Option<PathBuf>,
    /// Print the server's JSON instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// Options of `petrel query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The expression
    pub promql: String,
    /// At this time: `5m` ago, `2026-01-31 12:30:00`, RFC 3339 or Unix seconds; default now
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true, conflicts_with_all = ["from", "to"])]
    pub at: Option<Timestamp>,
    /// From this time on, at each step
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub from: Option<Timestamp>,
    /// Up to this time; default now
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true, requires = "from")]
    pub to: Option<Timestamp>,
    /// Step of a range; default 1m
    #[arg(long, value_name = "DURATION", requires = "from")]
    pub step: Option<String>,
    /// Where to ask
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `petrel hosts`.
#[derive(Debug, Args)]
pub struct HostsArgs {
    /// What to do; without it, list the hosts
    #[command(subcommand)]
    pub command: Option<HostsCommand>,
    /// Where to ask
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What can be done with a host.
#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// Say what a host is for; runs touch active hosts alone
    Duty {
        /// The host's name
        host: String,
        /// Its duty
        #[arg(value_parser = ["active", "draining", "maintenance", "quarantined"])]
        duty: String,
    },
}

/// Options of `petrel logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Of this host alone
    #[arg(long)]
    pub host: Option<String>,
    /// Of this severity and above
    #[arg(long, value_parser = ["debug", "info", "warning", "error", "fatal"])]
    pub severity: Option<String>,
    /// Containing this text
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// Of the template with this identity, as `--json` shows it
    #[arg(long, value_name = "ID")]
    pub template: Option<String>,
    /// From this time on: `5m` ago, `2026-01-31 12:30:00`, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub from: Option<Timestamp>,
    /// Up to this time; default now
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub to: Option<Timestamp>,
    /// The latest lines, so many of them, 1 to 10000
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
    /// Where to ask
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `petrel runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// What to do; without it, list the runs
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    /// Where to ask
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What can be done with a run.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// One run with its journal
    Show {
        /// The run's number
        id: u64,
    },
    /// Say yes to a run that waits for approval
    Approve {
        /// The run's number
        id: u64,
    },
    /// Say no to a run that waits for approval
    Deny {
        /// The run's number
        id: u64,
    },
    /// Stop a run: nothing more of it is delivered
    Abort {
        /// The run's number
        id: u64,
    },
}

/// What can be planned.
#[derive(Debug, Subcommand)]
pub enum Plan {
    /// Where the guests of a host would go
    Evacuate {
        /// The host's name
        host: String,
        /// Where to ask
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Options of `petrel hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// `on` stops every new action in the fleet, `off` lets them go on; without it, say which it is
    #[arg(value_parser = ["on", "off"])]
    pub state: Option<String>,
    /// Where to ask
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `petrel backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to write it
    pub file: PathBuf,
    /// Write over a file of that name; it is replaced only once the new one is whole
    #[arg(long)]
    pub overwrite: bool,
    /// Whose
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `petrel restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    pub file: PathBuf,
    /// The data directory [default: as `petrel serve`]
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The config file of the server, for its data directory
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Move the databases that are there aside
    #[arg(long)]
    pub replace: bool,
}

/// Options of `petrel import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file in Prometheus or OpenMetrics text; `-` reads standard input
    #[arg(conflicts_with = "from", required_unless_present = "from")]
    pub file: Option<PathBuf>,
    /// What the file is; without it, OpenMetrics where it ends with `# EOF`
    #[arg(long, value_parser = ["prometheus", "openmetrics"])]
    pub format: Option<String>,
    /// Time of samples that have none: `5m` ago, `2026-01-31 12:30:00`, RFC 3339 or Unix seconds; default now
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    pub time: Option<Timestamp>,
    /// Address of a Prometheus, or of another source's remote read endpoint
    #[arg(long)]
    pub from: Option<String>,
    /// First time to take from there
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true, requires = "from")]
    pub start: Option<Timestamp>,
    /// Last time to take from there; default now
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true, requires = "from")]
    pub end: Option<Timestamp>,
    /// Take only series that fulfil this selector, or another one given so
    #[arg(long = "match", requires = "from")]
    pub matches: Vec<String>,
    /// Where to
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Options of `petrel verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The data directory [default: as `petrel serve`]
    pub dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `petrel repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The data directory
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
