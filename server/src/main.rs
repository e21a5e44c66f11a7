//! The `petrel` program: reads the command line, makes the clock, the randomness and the runtime, and hands over. No decisions
//! beyond which command runs.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use petrel_server::cli::{self, Cli, Command, exit};
use petrel_server::config::{Overrides, Reload};
use petrel_server::{app, clock};

/// Asks for no huge pages (feature `no_thp`): with them a fifth more memory was resident, and nothing was faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = Cli::parse().command.unwrap_or_else(|| Command::Up(cli::UpArgs::default()));
    match run(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("petrel: {error:#}");
            ExitCode::from(exit::WRONG_USE)
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let done = match command {
        Command::Check { files } => Ok(cli::check(&files)),
        Command::Eval { eval } => cli::eval(&eval),
        Command::Up(args) => {
            let overrides = Overrides { data: args.data, listen: args.listen, retention: None };
            serve(&runtime, Reload { path: args.config, overrides }, true)
        }
        Command::Serve(args) => {
            let overrides = Overrides { data: args.data, listen: args.listen, retention: args.retention };
            serve(&runtime, Reload { path: args.config, overrides }, false)
        }
        Command::Backup(args) => runtime.block_on(cli::backup(&args)),
        Command::Import(args) => runtime.block_on(cli::import(&args, clock::wall()())),
        Command::Verify(args) => cli::verify(&args),
        Command::Repair(args) => cli::repair(&args, clock::wall()()),
        Command::Restore(args) => cli::restore(&args, clock::wall()()),
        other => runtime.block_on(cli::ask(other)),
    };
    // Dropping the runtime would wait for whatever still blocks a thread, a query of two minutes or the merging of a day. What
    // was acknowledged is on disk, and a transaction that is cut off leaves nothing.
    runtime.shutdown_background();
    done
}

fn serve(runtime: &tokio::runtime::Runtime, reload: Reload, with_agent: bool) -> anyhow::Result<u8> {
    app::log_to_stderr();
    let config = match reload.read() {
        Ok(config) => config,
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            anyhow::bail!("the config has {} to mend; nothing was started", plural(problems.len(), "mistake"));
        }
    };
    let seed = rand::random();
    runtime.block_on(app::serve(config, reload, clock::wall(), seed, with_agent))?;
    Ok(exit::DONE)
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("one {word}") } else { format!("{count} {word}s") }
}
