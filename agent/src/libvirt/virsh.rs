//! Running virsh for one libvirt; `crate::command` says how children are run.

use std::path::PathBuf;
use std::time::Instant;

use super::shell::ShellError;
use crate::command::{Running, Said, Tool, ToolError, shown};

/// A virsh for one libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virsh {
    /// The program.
    pub program: PathBuf,
    /// The libvirt it talks to.
    pub uri: String,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum VirshError {
    /// It gave no answer.
    #[error(transparent)]
    Call(#[from] ToolError),
    /// The one that answers all questions gave no answer.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// It says no.
    #[error("`{command}` said: {words}")]
    Failed {
        /// As run.
        command: String,
        /// Its own words.
        words: String,
    },
    /// It said something else than it should.
    #[error("cannot read what virsh {what} says: {problem}")]
    Unreadable {
        /// The command.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Virsh {
    /// The same program for another libvirt.
    pub fn to(&self, uri: &str) -> Virsh {
        Virsh { program: self.program.clone(), uri: uri.to_owned() }
    }

    /// The call as an operator would type it.
    pub fn command(&self, arguments: &[&str]) -> String {
        shown("virsh", &self.vector(arguments))
    }

    /// Runs a call to its end and returns its standard output.
    ///
    /// # Errors
    /// When it does not exit with 0 until `deadline`.
    pub fn ask(&self, arguments: &[&str], deadline: Instant) -> Result<String, VirshError> {
        let said = self.say(arguments, deadline)?;
        if said.well() {
            Ok(said.out)
        } else {
            Err(VirshError::Failed { command: self.command(arguments), words: said.words })
        }
    }

    /// Runs a call to its end, whatever its exit.
    ///
    /// # Errors
    /// When it does not end until `deadline`.
    pub fn say(&self, arguments: &[&str], deadline: Instant) -> Result<Said, VirshError> {
        Ok(Tool::new(&self.program).run(&self.vector(arguments), deadline)?)
    }

    /// Starts a call.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start(&self, arguments: &[&str]) -> Result<Running, VirshError> {
        Ok(Tool::new(&self.program).start(&self.vector(arguments))?)
    }

    fn vector<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        ["-q", "-c", &self.uri].into_iter().chain(arguments.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// A program in place of virsh. A child writes it: a file that this process has open for writing, and with it every
    /// child that another test forks meanwhile, cannot be run.
    fn shell(script: &str) -> (tempfile::TempDir, Virsh) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("virsh");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let written = Command::new("sh").args(["-c", write, "sh", script]).arg(&program).status().unwrap();
        assert!(written.success());
        (folder, Virsh { program, uri: "qemu:///system".to_owned() })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn arguments_go_as_they_are_and_answers_come_back() {
        let (_folder, virsh) = shell("echo \"$# $4 $LC_ALL\"; echo 'error: no such thing' >&2; exit $5");
        assert_eq!(virsh.ask(&["a b;c", "0"], soon()).unwrap(), "5 a b;c C\n");
        assert_eq!(
            virsh.ask(&["a b;c", "1"], soon()).unwrap_err().to_string(),
            "`virsh -q -c qemu:///system 'a b;c' 1` said: no such thing"
        );
    }
}
