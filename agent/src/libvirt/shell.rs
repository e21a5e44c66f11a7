//! One virsh for all questions to one libvirt: it is started at the first, reads commands from its input, and is started anew
//! when it ends or hangs. A call of virsh costs about 14 ms of processor time, a question to one that runs 0.7 ms. Its
//! connection is read-only: what is asked here cannot change anything.
//!
//! virsh answers to both of its outputs, in order. After every command a mark is asked for (`echo --err`), by which the
//! answers are told apart; virsh repeats each command after its prompt, which is cut away. A mark holds a random number of its
//! shell: what a guest's owner writes into its description cannot contain it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Virsh;
use crate::command::{Dialog, DialogError, SAY_BYTES_MAX, Tool, ToolError};

/// virsh keeps no history (its file would be the operator's own), and does not fold what it repeats into several lines.
const ENVIRONMENT: [(&str, &str); 2] = [("XDG_CACHE_HOME", "/dev/null"), ("TERM", "dumb")];
/// virsh's prompts, for a connection that may change things and for one that may not.
const PROMPTS: [&str; 2] = ["virsh # ", "virsh > "];
/// The first rest after a virsh that failed; it doubles with every failure in a row.
const REST_MIN: Duration = Duration::from_secs(2);
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(60);

/// A virsh that answers one question after the other. Whoever asks while another does waits until its own deadline.
pub struct Shell {
    virsh: Virsh,
    /// Makes the marks unpredictable.
    nonce: u64,
    seat: Mutex<Seat>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Seat {
    taken: bool,
    dialog: Option<Dialog>,
    /// Numbers the marks.
    asked: u64,
    failures: u32,
    rests_until: Option<Instant>,
}

/// What virsh says to one command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its output.
    pub out: String,
    /// Its complaints, in one line; empty when all went well.
    pub words: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// virsh cannot be run.
    #[error(transparent)]
    Start(#[from] ToolError),
    /// It has failed of late.
    #[error("virsh failed {failures} times in a row and is started again in {seconds} s")]
    Rests {
        /// Failures in a row.
        failures: u32,
        /// Until the next attempt.
        seconds: u64,
    },
    /// Others keep it busy.
    #[error("virsh is busy with another question; libvirt may hang")]
    Busy,
    /// It broke off.
    #[error("virsh broke off at `{command}`; libvirt may hang")]
    BrokeOff {
        /// The first command of those that it was asked.
        command: String,
        /// How.
        #[source]
        source: DialogError,
    },
    /// A command of more than one line, or one that is too long.
    #[error("`{command}` cannot be asked: it must be one short line")]
    Unfit {
        /// Its beginning.
        command: String,
    },
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shell").field(&self.virsh).finish()
    }
}

impl PartialEq for Shell {
    fn eq(&self, other: &Shell) -> bool {
        self.virsh == other.virsh
    }
}

impl Eq for Shell {}

impl Shell {
    /// A shell for one libvirt, with a random number that nobody can guess. Starts nothing yet.
    pub fn of(virsh: Virsh, nonce: u64) -> Shell {
        Shell { virsh, nonce, seat: Mutex::default(), free: Condvar::new() }
    }

    /// The program and the libvirt that it talks to.
    pub fn virsh(&self) -> &Virsh {
        &self.virsh
    }

    /// Asks one command after the other and returns an answer for each, also where virsh complains.
    ///
    /// # Errors
    /// When virsh cannot be run, ends, or does not answer all until `deadline`; then it is started anew by a later question.
    pub fn ask(&self, commands: &[&str], deadline: Instant) -> Result<Vec<Answer>, ShellError> {
        if let Some(unfit) = commands.iter().find(|command| command.contains(['\n', '\r']) || command.len() > 4096) {
            return Err(ShellError::Unfit { command: unfit.chars().take(80).collect() });
        }
        let mut seat = self.take(deadline)?;
        let (dialog, mut asked) = (seat.dialog.take(), seat.asked);
        drop(seat);
        let was_there = dialog.is_some();
        let mut outcome = self.talk(dialog, commands, &mut asked, deadline);
        // One that ended between two questions, as after an update of libvirt: a new one may do.
        if was_there && matches!(&outcome, Err(ShellError::BrokeOff { source: DialogError::Ended, .. })) {
            outcome = self.talk(None, commands, &mut asked, deadline);
        }
        let mut seat = self.seat();
        seat.taken = false;
        seat.asked = asked;
        let answers = outcome.map(|(dialog, answers)| {
            (seat.dialog, seat.failures, seat.rests_until) = (Some(dialog), 0, None);
            answers
        });
        if answers.is_err() {
            seat.failures = seat.failures.saturating_add(1);
            seat.rests_until = Some(Instant::now() + rest(seat.failures));
        }
        drop(seat);
        self.free.notify_one();
        answers
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else asks.
    fn take(&self, deadline: Instant) -> Result<MutexGuard<'_, Seat>, ShellError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.free.wait_timeout_while(self.seat(), left, |seat| seat.taken);
        let (mut seat, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if seat.taken {
            return Err(ShellError::Busy);
        }
        let rests = seat.rests_until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(left) = rests.filter(|left| !left.is_zero()) {
            let seconds = left.as_secs() + 1;
            let failures = seat.failures;
            drop(seat);
            self.free.notify_one();
            return Err(ShellError::Rests { failures, seconds });
        }
        seat.taken = true;
        Ok(seat)
    }

    /// Asks everything of a virsh, a new one where there is none.
    fn talk(
        &self,
        dialog: Option<Dialog>,
        commands: &[&str],
        asked: &mut u64,
        deadline: Instant,
    ) -> Result<(Dialog, Vec<Answer>), ShellError> {
        let mut dialog = match dialog {
            Some(dialog) => dialog,
            None => Tool::new(&self.virsh.program).talk(&["-q", "-r", "-c", &self.virsh.uri], &ENVIRONMENT)?,
        };
        let mut answers = Vec::with_capacity(commands.len());
        let mut rest = commands;
        while !rest.is_empty() {
            let (text, count) = said(rest, self.nonce, *asked);
            let broke_off = |source| ShellError::BrokeOff { command: rest[0].to_owned(), source };
            dialog.say(&text).map_err(broke_off)?;
            let heard = dialog.hear(&mark(self.nonce, *asked + count as u64), deadline).map_err(broke_off)?;
            let heard = String::from_utf8_lossy(&heard);
            answers.extend(parts(&heard, self.nonce, *asked, count).map(answer));
            *asked += count as u64 + 1;
            rest = &rest[count..];
        }
        Ok((dialog, answers))
    }
}

/// How long to rest after so many failures in a row.
fn rest(failures: u32) -> Duration {
    REST_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(REST_MAX)
}

/// As many commands as fit into one breath, each between its mark and the next, and how many.
fn said(commands: &[&str], nonce: u64, first: u64) -> (String, usize) {
    let mut text = ask_mark(nonce, first);
    let mut count = 0;
    for command in commands {
        let more = format!("{command}\n{}", ask_mark(nonce, first + count as u64 + 1));
        if count > 0 && text.len() + more.len() > SAY_BYTES_MAX {
            break;
        }
        text.push_str(&more);
        count += 1;
    }
    (text, count)
}

fn ask_mark(nonce: u64, number: u64) -> String {
    format!("echo --err @@petrel-{nonce:016x}-{number}@@\n")
}

/// What virsh says to [`ask_mark`].
fn mark(nonce: u64, number: u64) -> String {
    format!("error: @@petrel-{nonce:016x}-{number}@@\n")
}

/// What was said between each mark and the next one, from the mark `first` on. O(text).
fn parts(heard: &str, nonce: u64, first: u64, count: usize) -> impl Iterator<Item = &str> {
    let opening = mark(nonce, first);
    let mut rest = heard.find(&opening).map_or(heard, |at| &heard[at + opening.len()..]);
    (0..count as u64).map(move |n| {
        let end = mark(nonce, first + n + 1);
        let (between, after) = rest.split_once(&end).unwrap_or((rest, ""));
        rest = after;
        between
    })
}

/// The answer out of what was said between two marks.
fn answer(between: &str) -> Answer {
    // The first line repeats the command, the last one the wish for the mark. A last line of output may have no end.
    let between = between.split_once('\n').map_or("", |(_, rest)| rest);
    let last = between.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    let prompt = PROMPTS.iter().filter_map(|prompt| between[last..].rfind(prompt)).max().unwrap_or(0);
    let said = &between[..last + prompt];
    if !said.contains("error: ") {
        return Answer { out: said.to_owned(), words: String::new() };
    }
    let mut answer = Answer::default();
    for line in said.split_inclusive('\n') {
        match line.strip_prefix("error: ") {
            Some(complaint) => {
                let separator = if answer.words.is_empty() { "" } else { "; " };
                answer.words.push_str(separator);
                answer.words.push_str(complaint.trim());
            }
            None => answer.out.push_str(line),
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// As virsh 9 said it.
    const HEARD: &str = "virsh > echo --err @@petrel-00000000000000ab-7@@\nerror: @@petrel-00000000000000ab-7@@\nvirsh > nodeinfo\nCPU model: x86_64\n\
        virsh > echo --err @@petrel-00000000000000ab-8@@\nerror: @@petrel-00000000000000ab-8@@\nvirsh > dominfo x\nerror: failed to get domain 'x'\n\
        error: no such\nvirsh > echo --err @@petrel-00000000000000ab-9@@\nerror: @@petrel-00000000000000ab-9@@\nvirsh > echo a\navirsh > echo --err \
        @@petrel-00000000000000ab-10@@\nerror: @@petrel-00000000000000ab-10@@\n";

    #[test]
    fn answers_are_told_apart() {
        let (text, count) = said(&["nodeinfo", "dominfo x"], 0xab, 7);
        assert_eq!(
            (text.as_str(), count),
            (
                "echo --err @@petrel-00000000000000ab-7@@\nnodeinfo\necho --err @@petrel-00000000000000ab-8@@\ndominfo x\necho --err @@petrel-00000000000000ab-9@@\n",
                2
            )
        );
        let of = |out: &str, words: &str| Answer { out: out.to_owned(), words: words.to_owned() };
        let told: Vec<Answer> = parts(HEARD, 0xab, 7, 3).map(answer).collect();
        assert_eq!(told, [of("CPU model: x86_64\n", ""), of("", "failed to get domain 'x'; no such"), of("a", "")]);
        assert_eq!(rest(1), REST_MIN);
        assert_eq!(rest(200), REST_MAX);
        let many = vec!["domjobinfo dfd9ab2e-f43a-474d-ae05-34f5adb249ea"; 2000];
        assert!(said(&many, 0xab, 0).1 < 2000 && said(&many, 0xab, 0).0.len() <= SAY_BYTES_MAX);
    }

    #[test]
    fn a_mark_that_a_guest_wrote_does_not_split_an_answer() {
        let heard =
            HEARD.replace("CPU model: x86_64\n", "<title>\nerror: @@petrel-8@@\nerror: @@petrel-00-8@@\n</title>\n");
        let told: Vec<Answer> = parts(&heard, 0xab, 7, 3).map(answer).collect();
        assert_eq!(told[0].out, "<title>\n</title>\n");
        assert_eq!(told[1].words, "failed to get domain 'x'; no such");
    }

    /// A program in place of virsh, which repeats what it reads after a prompt and has a log of its starts.
    fn pretend(folder: &Path, also: &str) -> Shell {
        let script = format!(
            "echo start >> {log}\nwhile read -r line; do echo \"virsh > $line\"; case \"$line\" in\n\
            'echo --err '*) echo \"error: ${{line#echo --err }}\" >&2;;\n{also}\n*) echo \"you said $line\";; esac; done",
            log = folder.join("log").display()
        );
        let program = folder.join("virsh");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let written = Command::new("sh").args(["-c", write, "sh", &script]).arg(&program).status().unwrap();
        assert!(written.success());
        Shell::of(Virsh { program, uri: "qemu:///system".to_owned() }, 0xab)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn one_virsh_answers_all_and_is_started_anew_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let shell = pretend(folder.path(), "die) exit 0;;");
        let starts = || std::fs::read_to_string(folder.path().join("log")).unwrap().lines().count();
        for _ in 0..3 {
            let answers = shell.ask(&["one", "two"], soon()).unwrap();
            assert_eq!(answers[1], Answer { out: "you said two\n".to_owned(), words: String::new() });
        }
        assert_eq!(starts(), 1);
        // Dies at the question, is started anew for it, dies again: and rests.
        let error = shell.ask(&["die"], soon()).unwrap_err();
        assert!(matches!(error, ShellError::BrokeOff { source: DialogError::Ended, .. }), "{error}");
        assert_eq!(starts(), 2);
        assert!(matches!(shell.ask(&["one"], soon()), Err(ShellError::Rests { failures: 1, .. })));
        shell.seat().rests_until = None;
        assert_eq!(shell.ask(&["one"], soon()).unwrap().len(), 1);
        assert_eq!((starts(), shell.seat().failures), (3, 0));
    }

    #[test]
    fn one_that_hangs_is_killed_and_who_waits_for_it_gives_up() {
        let folder = tempfile::tempdir().unwrap();
        let shell = pretend(folder.path(), "hang) sleep 600;;");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let error = shell.ask(&["hang"], Instant::now() + Duration::from_secs(1)).unwrap_err();
                assert!(matches!(error, ShellError::BrokeOff { source: DialogError::Late, .. }), "{error}");
            });
            let taken_by = soon();
            while !shell.seat().taken {
                assert!(Instant::now() < taken_by);
                std::thread::yield_now();
            }
            assert!(matches!(shell.ask(&["one"], Instant::now()), Err(ShellError::Busy)));
        });
        assert!(matches!(shell.ask(&["one"], soon()), Err(ShellError::Rests { .. })));
        assert!(matches!(shell.ask(&["a\nb"], soon()), Err(ShellError::Unfit { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(heard in "(.|\n|virsh > |error: |@@petrel-00000000000000ab-1@@\n|error: @@petrel-00000000000000ab-2@@\n){0,40}") {
            assert_eq!(parts(&heard, 0xab, 1, 2).map(answer).count(), 2);
        }
    }
}
