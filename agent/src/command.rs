//! Running command lines: argument vectors, never a shell; the C locale; every call has a deadline and is killed at it with
//! all that it started; what it says is bounded. A child has a process group of its own: a Ctrl-C in the agent's terminal
//! must not reach a migration.

mod dialog;

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use dialog::{Dialog, DialogError, SAY_BYTES_MAX};

/// Most of each of its two outputs that is kept: descriptions of a few thousand guests.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// How often a running child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A child that has ended closes its pipes at once; one whose own child keeps them open is not waited for.
const PIPES_WITHIN: Duration = Duration::from_secs(1);

/// A command line program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    program: PathBuf,
    output_max: u64,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
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
}

impl ToolError {
    /// Whether there is no such program.
    pub fn is_absent(&self) -> bool {
        matches!(self, ToolError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A call that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: mpsc::Receiver<(bool, Vec<u8>)>,
}

/// A call that goes on; killed with its group when this is dropped.
#[derive(Debug)]
pub struct Following {
    child: Child,
}

/// What a call said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub out: String,
    /// Standard error, in one line.
    pub words: String,
}

impl Said {
    /// Whether it exited with 0.
    pub fn well(&self) -> bool {
        self.code == Some(0)
    }
}

impl Tool {
    /// The program at a path, or of a name that is looked up in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Tool {
        Tool { program: program.into(), output_max: OUTPUT_BYTES_MAX }
    }

    /// The same, keeping so many bytes at most of each of its outputs.
    pub fn keeping(self, output_max: u64) -> Tool {
        Tool { output_max, ..self }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a call to its end, whatever its exit. Blocks until `deadline` at most, and then for as long as killing takes.
    ///
    /// # Errors
    /// When it cannot be run or does not end until `deadline`.
    pub fn run(&self, arguments: &[&str], deadline: Instant) -> Result<Said, ToolError> {
        let begun = Instant::now();
        let mut running = self.start(arguments)?;
        if let Some(said) = running.wait(&|| Instant::now() >= deadline) {
            return Ok(said);
        }
        running.kill();
        let command = shown(&self.program.display().to_string(), arguments);
        Err(ToolError::TooSlow { command, seconds: begun.elapsed().as_secs() })
    }

    /// Starts a call that goes on until it is killed, and hands back what it says, to be read as it comes. Its standard
    /// error is not kept.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn follow(&self, arguments: &[&str]) -> Result<(Following, ChildStdout), ToolError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").env_remove("LANGUAGE").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let start = |source| ToolError::Start { program: self.program.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        match child.stdout.take() {
            Some(out) => Ok((Following { child }, out)),
            None => Err(start(io::Error::from(io::ErrorKind::BrokenPipe))),
        }
    }

    /// Starts a call.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start(&self, arguments: &[&str]) -> Result<Running, ToolError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").env_remove("LANGUAGE").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source| ToolError::Start { program: self.program.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let (sender, output) = mpsc::sync_channel(2);
        if let (Some(out), Some(words)) = (child.stdout.take(), child.stderr.take()) {
            read_away(true, out, self.output_max, sender.clone());
            read_away(false, words, self.output_max, sender);
        }
        Ok(Running { child, output })
    }
}

/// Reads a pipe on a thread that ends with the child: a child with much to say blocks until its pipes are read. What is
/// beyond the bound is read and thrown away, so that the child can end.
fn read_away(
    is_out: bool,
    mut pipe: impl io::Read + Send + 'static,
    output_max: u64,
    sender: mpsc::SyncSender<(bool, Vec<u8>)>,
) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is; nobody may be waiting for it any more.
        drop(pipe.by_ref().take(output_max).read_to_end(&mut bytes));
        drop(sender.send((is_out, bytes)));
        drop(io::copy(&mut pipe, &mut io::sink()));
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

    /// Ends the call and what it started, as far as that stayed in its process group. A migration that it asked for goes on
    /// in libvirtd.
    pub fn kill(mut self) {
        kill_group(&mut self.child);
    }
}

fn kill_group(child: &mut Child) {
    // They may have ended by themselves.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    drop(child.kill());
    drop(child.wait());
}

impl Following {
    /// Ends the call with what it started; its output ends too. Does not wait for that: one that hangs on a disk takes long.
    pub fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// Waits for its end, and says its exit code; `None` when a signal ended it.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().ok().and_then(|status| status.code())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // One that has ended and was waited for has no group any more, and its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn said(status: ExitStatus, out: &[u8], words: &[u8]) -> Said {
    let words = String::from_utf8_lossy(words);
    let lines = words.lines().map(|line| line.trim().trim_start_matches("error: ")).filter(|line| !line.is_empty());
    Said {
        code: status.code(),
        out: String::from_utf8_lossy(out).into_owned(),
        words: lines.collect::<Vec<_>>().join("; "),
    }
}

/// The call as an operator would type it.
pub fn shown(program: &str, arguments: &[&str]) -> String {
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

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn sh(script: &str, deadline: Instant) -> Result<Said, ToolError> {
        Tool::new("sh").run(&["-c", script], deadline)
    }

    #[test]
    fn answers_come_back_with_their_exit() {
        let said = sh("echo \"$LC_ALL\"; echo 'error: no such thing' >&2; exit 3", soon()).unwrap();
        assert_eq!(said, Said { code: Some(3), out: "C\n".to_owned(), words: "no such thing".to_owned() });
        let absent = Tool::new("/nonexistent/virsh").run(&[], soon()).unwrap_err();
        assert!(absent.is_absent(), "{absent}");
        assert_eq!(shown("virsh", &["a b", "c"]), "virsh 'a b' c");
    }

    #[test]
    fn a_call_that_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = sh("sleep 600 & sleep 600", Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ToolError::TooSlow { .. }) && !error.is_absent());
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn much_output_does_not_block() {
        assert_eq!(sh("head -c 1000000 /dev/zero", soon()).unwrap().out.len(), 1_000_000);
    }
}
