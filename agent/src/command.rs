//! Running command lines: argument vectors, never a shell; the C locale; every call has a deadline and is killed at it with
//! all that it started; what it says is bounded. A child has a process group of its own: a Ctrl-C in the agent's terminal
//! must not reach a migration.

mod dialog;
mod endings;

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::Builder;
use std::time::{Duration, Instant};

pub use dialog::{Dialog, DialogError, SAY_BYTES_MAX};
pub use endings::unreaped;
use endings::{kill_group, signal_group};

/// Most of each of its two outputs that is kept: the state of a large cluster takes less. What is asked of many guests goes
/// through a [`Dialog`], which has its own bound.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// How often a running child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A child that has ended closes its pipes at once; one whose own child keeps them open is not waited for.
const PIPES_WITHIN: Duration = Duration::from_secs(1);

/// Largest piece that is read of a pipe at once.
const PIECE_BYTES: usize = 8 << 10;

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
    out: Kept,
    words: Kept,
    /// Ends when both pipes have ended; nothing is ever sent.
    open: mpsc::Receiver<Infallible>,
}

/// What was read of a pipe so far.
type Kept = Arc<Mutex<Vec<u8>>>;

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
        self.start_with(arguments, &Builder::new)
    }

    fn start_with(&self, arguments: &[&str], thread: &dyn Fn() -> Builder) -> Result<Running, ToolError> {
        endings::reap();
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").env_remove("LANGUAGE").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source| ToolError::Start { program: self.program.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let (closing, open) = mpsc::channel();
        let read = |child: &mut Child| {
            let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
            let (out, words) = (child.stdout.take().ok_or_else(broken)?, child.stderr.take().ok_or_else(broken)?);
            let out = read_away(out, self.output_max, thread(), closing.clone())?;
            Ok((out, read_away(words, self.output_max, thread(), closing)?))
        };
        match read(&mut child) {
            Ok((out, words)) => Ok(Running { child, out, words, open }),
            // A host without a thread to spare must not be left with a child that nobody listens to.
            Err(source) => {
                kill_group(&mut child);
                Err(start(source))
            }
        }
    }
}

/// Reads a pipe on a thread of its own until the pipe ends: a child with much to say blocks until its pipes are read. What
/// is beyond the bound is read and thrown away, so that the child can end.
fn read_away(
    mut pipe: impl io::Read + Send + 'static,
    output_max: u64,
    thread: Builder,
    open: mpsc::Sender<Infallible>,
) -> io::Result<Kept> {
    let kept = Kept::default();
    let bytes = Arc::clone(&kept);
    let read = move || {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match pipe.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = output_max.saturating_sub(bytes.len() as u64);
                    let count = count.min(usize::try_from(room).unwrap_or(usize::MAX));
                    bytes.extend_from_slice(&piece[..count]);
                }
            }
        }
        drop(open);
    };
    thread.name("pipe".to_owned()).spawn(read).map(|_| kept)
}

impl Running {
    /// Waits until the call ends, or until `stop` says so: then it still runs, and nothing is returned.
    pub fn wait(&mut self, stop: &dyn Fn() -> bool) -> Option<Said> {
        while !endings::has_ended(&self.child) {
            if stop() {
                return None;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // Something that it left behind may hold its pipes. The child keeps its number until it is waited for below, so that
        // the group is still its own.
        if !self.closes_within(PIPES_WITHIN) {
            signal_group(&self.child);
            if !self.closes_within(PIPES_WITHIN) {
                tracing::warn!(pid = self.child.id(), "a child has ended and what it started keeps its output open");
            }
        }
        let status = self.child.wait().ok();
        let kept = |kept: &Kept| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        Some(said(status, &kept(&self.out), &kept(&self.words)))
    }

    /// Whether both of its pipes end within the time.
    fn closes_within(&self, time: Duration) -> bool {
        matches!(self.open.recv_timeout(time), Err(mpsc::RecvTimeoutError::Disconnected))
    }

    /// Ends the call and what it started, as far as that stayed in its process group. A migration that it asked for goes on
    /// in libvirtd.
    pub fn kill(mut self) {
        kill_group(&mut self.child);
    }
}

impl Following {
    /// Ends the call with what it started; its output ends too. Does not wait for that: one that hangs on a disk takes long.
    pub fn kill(&mut self) {
        signal_group(&self.child);
    }

    /// Ends the call and waits a moment for that.
    pub fn end(mut self) {
        kill_group(&mut self.child);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // One that has ended and was waited for has no group any more, and its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            endings::later(&mut self.child);
        }
    }
}

fn said(status: Option<ExitStatus>, out: &[u8], words: &[u8]) -> Said {
    let words = String::from_utf8_lossy(words);
    let lines = words.lines().map(|line| line.trim().trim_start_matches("error: ")).filter(|line| !line.is_empty());
    Said {
        code: status.and_then(|status| status.code()),
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
    fn what_a_child_leaves_behind_is_ended_and_what_it_said_is_kept() {
        let begun = Instant::now();
        let said = sh("sleep 600 & echo $!; echo careful >&2", soon()).unwrap();
        assert_eq!((said.code, said.words.as_str()), (Some(0), "careful"));
        let left = Path::new("/proc").join(said.out.trim()).join("stat");
        let runs = || std::fs::read_to_string(&left).is_ok_and(|stat| !stat.contains(") Z "));
        while runs() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it was left behind");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_child_that_nobody_can_listen_to_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (file, begun) = (folder.path().join("here"), Instant::now());
        let script = format!("sleep 2; touch {}", file.display());
        // No address space has room for this stack.
        let thread = || Builder::new().stack_size(1 << 60);
        let error = Tool::new("sh").start_with(&["-c", &script], &thread).unwrap_err();
        assert!(matches!(&error, ToolError::Start { .. }) && !error.is_absent(), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2) && !file.exists());
    }

    #[test]
    fn much_output_does_not_block() {
        assert_eq!(sh("head -c 1000000 /dev/zero", soon()).unwrap().out.len(), 1_000_000);
        // What is beyond the bound is thrown away, and the child ends all the same.
        let said = sh("head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2", soon()).unwrap();
        assert_eq!((said.code, said.out.len(), said.words.len()), (Some(0), 4 << 20, 4 << 20));
    }
}
