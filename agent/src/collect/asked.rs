//! Collectors that ask a program: a program that is not installed means that its source is not here. Never a shell, always a
//! deadline (`command`).

use std::path::Path;
use std::time::{Duration, Instant};

use super::CollectError;
use crate::command::{Said, Tool, ToolError, shown};
use crate::error_chain::chain;

/// Runs a program to its end, whatever its exit.
///
/// # Errors
/// [`CollectError::Absent`] when there is no such program, otherwise when it gives no answer `within` the time.
pub(in crate::collect) fn ask(program: &str, arguments: &[&str], within: Duration) -> Result<Said, CollectError> {
    Tool::new(program).run(arguments, Instant::now() + within).map_err(|error| match error {
        error if ToolError::is_absent(&error) => CollectError::Absent { path: program.into() },
        error => CollectError::Asked(chain(&error)),
    })
}

/// What a program that did not do what it should said about it.
pub(in crate::collect) fn refused(program: &str, arguments: &[&str], said: &Said) -> CollectError {
    const WORDS_MAX: usize = 200;
    let words = if said.words.is_empty() { said.out.trim() } else { &said.words };
    let words: String = words.chars().take(WORDS_MAX).collect();
    CollectError::Asked(format!("`{}` said: {words}", shown(program, arguments)))
}

/// Whether a file or folder that marks a source is there. One that we may not look at counts as there: asking will tell.
///
/// # Errors
/// [`CollectError::Absent`] when it is not.
pub(in crate::collect) fn present(path: &Path) -> Result<(), CollectError> {
    match path.symlink_metadata() {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Err(CollectError::Absent { path: path.to_owned() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_absent_and_what_fails_says_why() {
        let second = Duration::from_secs(20);
        let absent = |outcome: Result<(), CollectError>| matches!(outcome, Err(CollectError::Absent { .. }));
        assert!(absent(ask("petrel-no-such-program", &[], second).map(drop)));
        assert!(absent(present(Path::new("/nonexistent/file"))));
        assert!(absent(present(Path::new("/dev/null/file"))));
        assert!(present(Path::new("/dev/null")).is_ok());
        let said = ask("sh", &["-c", "echo 'no cluster' >&2; exit 1"], second).unwrap();
        assert!(!said.well());
        assert_eq!(refused("crm_mon", &["-1"], &said).to_string(), "`crm_mon -1` said: no cluster");
    }
}
