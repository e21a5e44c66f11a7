//! A program that one talks with: lines go in, and what it says to both of its outputs comes back in the order in which it
//! said it. A thread reads, so that the program never blocks on a full pipe; how much may wait for us is bounded. The program
//! ends with its `Dialog`, and by itself when the agent is killed, since its input ends then.

use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Instant;

use super::{Tool, ToolError, endings, kill_group};

/// Pieces that wait to be heard; with them full the program blocks until we listen.
const PIECES_MAX: usize = 8;
/// Largest piece that is read at once.
const PIECE_BYTES: usize = 32 << 10;
/// Largest text that is said at once. A pipe takes 64 KiB, so saying it never blocks on a program that has not read yet.
pub const SAY_BYTES_MAX: usize = 32 << 10;
/// Most that is heard at once: a breath asks for some four hundred descriptions of guests at most.
const HEAR_BYTES_MAX: usize = 16 << 20;

/// A program at the other end of two pipes.
#[derive(Debug)]
pub struct Dialog {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
}

/// Why a dialog is over.
#[derive(Debug, thiserror::Error)]
pub enum DialogError {
    /// The program ended or closed its pipes.
    #[error("it ended")]
    Ended,
    /// It did not say what was awaited in time.
    #[error("it did not answer in time")]
    Late,
    /// It says more than is kept.
    #[error("its answer is longer than {HEAR_BYTES_MAX} bytes")]
    TooLong,
}

impl Tool {
    /// Starts the program to talk with it, with more variables in its environment.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn talk(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Dialog, ToolError> {
        let failed = |source| ToolError::Start { program: self.program.clone(), source };
        endings::reap();
        let (reader, writer) = io::pipe().map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").env_remove("LANGUAGE").process_group(0);
        command.envs(environment.iter().copied()).stdin(Stdio::piped());
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let mut child = command.spawn().map_err(failed)?;
        // The command holds the writing ends; without this the reader would never see an end.
        drop(command);
        let input = child.stdin.take().ok_or_else(|| failed(io::Error::from(io::ErrorKind::BrokenPipe)))?;
        let (sender, output) = sync_channel(PIECES_MAX);
        let thread = std::thread::Builder::new().name("dialog".to_owned());
        let mut dialog = Dialog { child, input, output };
        if let Err(source) = thread.spawn(move || listen(reader, &sender)) {
            dialog.end();
            return Err(failed(source));
        }
        Ok(dialog)
    }
}

/// Reads until the pipe ends or nobody listens.
fn listen(mut pipe: PipeReader, sender: &SyncSender<Vec<u8>>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if sender.send(buffer[..count].to_vec()).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

impl Dialog {
    /// Says a text of at most [`SAY_BYTES_MAX`], after everything said before was heard out.
    ///
    /// # Errors
    /// When the program does not listen any more.
    pub fn say(&mut self, text: &str) -> Result<(), DialogError> {
        self.input.write_all(text.as_bytes()).and_then(|()| self.input.flush()).map_err(|_| DialogError::Ended)
    }

    /// Listens until `end` was said, and returns all up to and with it; what came after it in the same breath is forgotten.
    ///
    /// # Errors
    /// When that does not come until `deadline`, or the program ends before.
    pub fn hear(&mut self, end: &str, deadline: Instant) -> Result<Vec<u8>, DialogError> {
        let mut heard: Vec<u8> = Vec::new();
        loop {
            let piece = match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(piece) => piece,
                Err(RecvTimeoutError::Timeout) => return Err(DialogError::Late),
                Err(RecvTimeoutError::Disconnected) => return Err(DialogError::Ended),
            };
            // The end may be cut in two by the pieces.
            let from = heard.len().saturating_sub(end.len());
            heard.extend_from_slice(&piece);
            if let Some(at) = heard[from..].windows(end.len()).position(|window| window == end.as_bytes()) {
                heard.truncate(from + at + end.len());
                return Ok(heard);
            }
            if heard.len() > HEAR_BYTES_MAX {
                return Err(DialogError::TooLong);
            }
        }
    }

    fn end(&mut self) {
        kill_group(&mut self.child);
    }
}

impl Drop for Dialog {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sh(script: &str) -> Dialog {
        Tool::new("sh").talk(&["-c", script], &[("GREETING", "hello")]).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn both_outputs_come_in_order() {
        let mut dialog = sh("while read -r word; do echo \"$GREETING $word\"; echo \"again $word.\" >&2; done");
        for word in ["one", "two"] {
            dialog.say(&format!("{word}\n")).unwrap();
            let heard = dialog.hear(&format!("again {word}.\n"), soon()).unwrap();
            assert_eq!(String::from_utf8(heard).unwrap(), format!("hello {word}\nagain {word}.\n"));
        }
    }

    #[test]
    fn much_is_heard_and_an_end_cut_in_two_is_found() {
        let mut dialog = sh("head -c 1000000 /dev/zero; printf 'the e'; read -r go; printf 'nd'; sleep 600");
        dialog.say("go\n").unwrap();
        assert_eq!(dialog.hear("the end", soon()).unwrap().len(), 1_000_007);
    }

    #[test]
    fn who_ends_or_hangs_is_told_apart() {
        assert!(matches!(sh("exit 0").hear("x", soon()), Err(DialogError::Ended)));
        let begun = Instant::now();
        let mut silent = sh("sleep 600 & sleep 600");
        let heard = silent.hear("x", Instant::now() + Duration::from_millis(50));
        assert!(matches!(heard, Err(DialogError::Late)), "{heard:?}");
        drop(silent);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
