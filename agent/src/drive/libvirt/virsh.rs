//! Running virsh: argument vectors, never a shell; the C locale; every call has a deadline and is killed at it. A child has a
//! process group of its own: a Ctrl-C in the agent's terminal must not reach a migration.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Descriptions of a few thousand guests.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// How often a running child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A child that has ended closes its pipes at once; one whose own child keeps them open is not waited for.
const PIPES_WITHIN: Duration = Duration::from_secs(1);

/// A virsh for one libvirt.
#[derive(Debug, Clone)]
pub struct Virsh {
    /// The program.
    pub program: PathBuf,
    /// The libvirt it talks to.
    pub uri: String,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum VirshError {
    /// It cannot be run.
    #[error("cannot run {program}; is it installed?")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was killed at its deadline.
    #[error("`{command}` gave no answer within {seconds} s")]
    TooSlow {
        /// As run.
        command: String,
        /// How long it had.
        seconds: u64,
    },
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

/// A call that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: mpsc::Receiver<(bool, Vec<u8>)>,
}

/// What a call said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it exited with 0.
    pub well: bool,
    /// Standard output.
    pub out: String,
    /// Standard error, in one line.
    pub words: String,
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
        if said.well {
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
        run(&self.program, &self.vector(arguments), deadline)
    }

    /// Starts a call.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start(&self, arguments: &[&str]) -> Result<Running, VirshError> {
        start(&self.program, &self.vector(arguments))
    }

    fn vector<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        ["-q", "-c", &self.uri].into_iter().chain(arguments.iter().copied()).collect()
    }
}

/// Runs a program to its end, whatever its exit.
///
/// # Errors
/// When it cannot be run or does not end until `deadline`.
pub fn run(program: &Path, arguments: &[&str], deadline: Instant) -> Result<Said, VirshError> {
    let begun = Instant::now();
    let mut running = start(program, arguments)?;
    if let Some(said) = running.wait(&|| Instant::now() >= deadline) {
        return Ok(said);
    }
    running.kill();
    let command = shown(&program.display().to_string(), arguments);
    Err(VirshError::TooSlow { command, seconds: begun.elapsed().as_secs() })
}

fn start(program: &Path, arguments: &[&str]) -> Result<Running, VirshError> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").env_remove("LANGUAGE").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| VirshError::Start { program: program.to_owned(), source })?;
    let (sender, output) = mpsc::sync_channel(2);
    if let (Some(out), Some(words)) = (child.stdout.take(), child.stderr.take()) {
        read_away(true, out, sender.clone());
        read_away(false, words, sender);
    }
    Ok(Running { child, output })
}

/// Reads a pipe on a thread that ends with the child: a child with much to say blocks until its pipes are read.
fn read_away(is_out: bool, pipe: impl io::Read + Send + 'static, sender: mpsc::SyncSender<(bool, Vec<u8>)>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is; nobody may be waiting for it any more.
        drop(pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes));
        drop(sender.send((is_out, bytes)));
    });
}

impl Running {
    /// Waits until the call ends, or until `stop` says so: then it still runs, and nothing is returned.
    pub fn wait(&mut self, stop: &dyn Fn() -> bool) -> Option<Said> {
        let (mut out, mut words) = (Vec::new(), Vec::new());
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    while let Ok((is_out, bytes)) = self.output.recv_timeout(PIPES_WITHIN) {
                        *(if is_out { &mut out } else { &mut words }) = bytes;
                    }
                    return Some(said(status, &out, &words));
                }
                Ok(None) | Err(_) if stop() => return None,
                Ok(None) | Err(_) => {}
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the call. A migration that it asked for goes on in libvirtd.
    pub fn kill(mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn said(status: ExitStatus, out: &[u8], words: &[u8]) -> Said {
    let words = String::from_utf8_lossy(words);
    let lines = words.lines().map(|line| line.trim().trim_start_matches("error: ")).filter(|line| !line.is_empty());
    Said {
        well: status.success(),
        out: String::from_utf8_lossy(out).into_owned(),
        words: lines.collect::<Vec<_>>().join("; "),
    }
}

/// The call as an operator would type it.
fn shown(program: &str, arguments: &[&str]) -> String {
    std::iter::once(program).chain(arguments.iter().copied()).map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_call_that_hangs_is_killed() {
        let (_folder, virsh) = shell("exec sleep 600");
        let error = virsh.ask(&["list"], Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, VirshError::TooSlow { .. }));
    }

    #[test]
    fn much_output_does_not_block() {
        let (_folder, virsh) = shell("head -c 1000000 /dev/zero");
        assert_eq!(virsh.ask(&["dumpxml"], soon()).unwrap().len(), 1_000_000);
    }
}
