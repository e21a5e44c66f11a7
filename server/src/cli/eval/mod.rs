//! `petrel eval`: models on files, without a server. Each command reads one file in the format of the published benchmarks' tools and
//! prints what the model says, so that anybody can hold it against the truth. Progress goes to standard error.

mod forecast;
mod sessions;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::exit;

/// What can be evaluated.
#[derive(Debug, Subcommand)]
pub enum Eval {
    /// Forecast each series of a file: `series,values`, values separated by blanks
    Forecast {
        /// The file
        #[arg(long)]
        input: PathBuf,
        /// Steps ahead
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        horizon: u16,
        /// Steps of a season; 1: none is known
        #[arg(long, default_value_t = 1)]
        season: u16,
    },
    /// Judge each block of work of a file after a training on another: `session,events`, events separated by blanks
    Sessions {
        /// Blocks to learn from, mostly normal
        #[arg(long)]
        train: PathBuf,
        /// Blocks to judge
        #[arg(long)]
        input: PathBuf,
    },
}

/// Runs a model and prints what it says. Returns the exit code.
///
/// # Errors
/// A file cannot be read, or a line of it is none of its format.
pub fn eval(command: &Eval) -> anyhow::Result<u8> {
    let text = match command {
        Eval::Forecast { input, horizon, season } => {
            forecast::run(input, &read(input)?, usize::from(*horizon), usize::from(*season))?
        }
        Eval::Sessions { train, input } => sessions::run((train, &read(train)?), (input, &read(input)?))?,
    };
    // Whoever reads may stop early, as `head` does; that is no mistake.
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit::DONE),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
