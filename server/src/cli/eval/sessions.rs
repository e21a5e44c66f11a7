//! `petrel eval sessions`: how strange each block of work of a file is, after a training on another.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use petrel_models::logs::Sessions;

/// Learns from one file and judges another: `score,alarm` for each of its sessions.
///
/// # Errors
/// The file and line that is no session.
pub fn run(train: (&Path, &str), input: (&Path, &str)) -> anyhow::Result<String> {
    let model = Sessions::learn(&sessions(train)?).with_context(|| format!("{} has no session", train.0.display()))?;
    let mut out = String::new();
    for session in sessions(input)? {
        let said = model.judge(&session);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{},{}", said.score, u8::from(said.is_alarm));
    }
    Ok(out)
}

/// The events of each session of a file: `session,events`, events separated by blanks.
fn sessions<'a>((path, text): (&Path, &'a str)) -> anyhow::Result<Vec<Vec<&'a str>>> {
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, header)) if header.trim() == "session,events" => {}
        _ => bail!("{}:1: the first line is not `session,events`", path.display()),
    }
    let session = |(place, line): (usize, &'a str)| {
        let at = || format!("{}:{}: no comma after the session's name", path.display(), place + 1);
        Ok(line.split_once(',').with_context(at)?.1.split_whitespace().collect())
    };
    lines.filter(|(_, line)| !line.trim().is_empty()).map(session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_is_a_line_and_mistakes_are_placed() {
        let train = format!("session,events\n{}", "a,x y z\n".repeat(300));
        let path = Path::new("t.csv");
        let out = run((path, &train), (path, "session,events\nb,x y z\nc,x q\n")).unwrap();
        let alarms: Vec<&str> = out.lines().filter_map(|line| line.split(',').nth(1)).collect();
        assert_eq!(alarms, ["0", "1"]);
        let wrong = |train: &str| format!("{:#}", run((path, train), (path, "session,events\n")).unwrap_err());
        assert!(wrong("a,b\n").contains("t.csv:1"));
        assert!(wrong("session,events\nab\n").contains("t.csv:2"));
        assert!(wrong("session,events\n").contains("has no session"));
    }
}
