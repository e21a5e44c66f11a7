//! The exec check: a program says by its exit code whether all is well, as monitoring plugins do. It is an argument vector of
//! this host's own config, never a shell; it is killed at its deadline with all that it started, and what it says is bounded.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::config::{Problem, problem};
use super::super::outcome::{Failure, Measure, Outcome, Reason};
use super::config::CheckKind;
use super::perfdata;
use crate::command::{Tool, ToolError};
use crate::error_chain::chain;
use crate::rounds::blocking;

/// Most that is kept of what a program says; a plugin says a line.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
const ARGUMENTS_MAX: usize = 64;

/// An exec check as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExec {
    /// Absolute path of the program, and its arguments.
    pub command: Vec<String>,
    /// Exit codes that are well. Default: 0.
    #[serde(default)]
    pub exit: Vec<i32>,
    /// Whether its output holds performance data as monitoring plugins write it.
    #[serde(default)]
    pub perfdata: bool,
}

/// What is checked.
#[derive(Debug, Clone)]
pub struct ExecCheck {
    command: Vec<String>,
    exit: Vec<i32>,
    has_perfdata: bool,
}

impl RawExec {
    pub(super) fn check(self, at: &str) -> Result<(String, CheckKind), Problem> {
        let program = self.command.first().cloned().unwrap_or_default();
        if !program.starts_with('/') {
            let allowed = "write the absolute path of a program and its arguments; there is no shell";
            return Err(problem(format!("{at}exec.command"), program, allowed));
        }
        if self.command.len() > ARGUMENTS_MAX || self.command.iter().any(|word| word.contains('\0')) {
            let allowed = "at most 63 arguments, without NUL";
            return Err(problem(format!("{at}exec.command"), self.command.len(), allowed));
        }
        if let Some(code) = self.exit.iter().find(|code| !(0..=255).contains(*code)) {
            return Err(problem(format!("{at}exec.exit"), code, "use 0 to 255"));
        }
        let exit = if self.exit.is_empty() { vec![0] } else { self.exit };
        let check = ExecCheck { command: self.command, exit, has_perfdata: self.perfdata };
        Ok((program, CheckKind::Exec(check)))
    }
}

impl ExecCheck {
    pub(super) async fn run(&self, within: Duration, outcome: &mut Outcome) {
        let command = self.command.clone();
        let run = move || {
            let arguments: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
            let tool = Tool::new(&command[0]).keeping(OUTPUT_BYTES_MAX);
            tool.run(&arguments, Instant::now() + within)
        };
        let said = match blocking(run).await {
            Ok(said) => said,
            // The command line may hold what is nobody's business: only the program is named, by the label.
            Err(ToolError::TooSlow { .. }) => return outcome.fail(Failure::late(within)),
            Err(error) => return outcome.fail(Failure::new(Reason::Config, chain(&error))),
        };
        if let Some(code) = said.code {
            outcome.push(Measure::ExitCode, f64::from(code));
        }
        if self.has_perfdata {
            for value in perfdata::values(&said.out) {
                let labels = vec![("label", value.label), ("unit", value.unit)];
                outcome.push_with(Measure::Perfdata, labels, value.number);
            }
        }
        if !said.code.is_some_and(|code| self.exit.contains(&code)) {
            let words = said.out.lines().next().filter(|line| !line.is_empty()).unwrap_or(&said.words);
            let exit = said.code.map_or("was ended by a signal".to_owned(), |code| format!("exited with {code}"));
            outcome.fail(Failure::new(Reason::Status, format!("{exit}: {words}")));
        }
    }
}
