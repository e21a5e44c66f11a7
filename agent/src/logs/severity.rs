//! How bad a line is: by its syslog priority, else by a level it states, else by words that mean trouble.

use super::Severity;

/// Words that state a level when they stand in capitals, in brackets, after `level=` or before a colon.
const LEVELS: [(&str, Severity); 22] = [
    ("trace", Severity::Debug),
    ("debug", Severity::Debug),
    ("dbg", Severity::Debug),
    ("info", Severity::Info),
    ("notice", Severity::Info),
    ("warn", Severity::Warn),
    ("warning", Severity::Warn),
    ("wrn", Severity::Warn),
    ("error", Severity::Error),
    ("err", Severity::Error),
    ("eror", Severity::Error),
    ("severe", Severity::Error),
    ("fail", Severity::Error),
    ("failure", Severity::Error),
    ("fatal", Severity::Fatal),
    ("critical", Severity::Fatal),
    ("crit", Severity::Fatal),
    ("alert", Severity::Fatal),
    ("emerg", Severity::Fatal),
    ("emergency", Severity::Fatal),
    ("panic", Severity::Fatal),
    ("bug", Severity::Fatal),
];

/// Words that mean trouble wherever they stand.
const TROUBLE: [(&str, Severity); 14] = [
    ("error", Severity::Error),
    ("errors", Severity::Error),
    ("failed", Severity::Error),
    ("failure", Severity::Error),
    ("fatal", Severity::Fatal),
    ("panic", Severity::Fatal),
    ("oops", Severity::Fatal),
    ("segfault", Severity::Error),
    ("corruption", Severity::Error),
    ("oom", Severity::Error),
    ("denied", Severity::Warn),
    ("warning", Severity::Warn),
    ("timeout", Severity::Warn),
    ("unreachable", Severity::Warn),
];

/// A level stands among the first words or nowhere.
const LEVEL_WORDS: usize = 6;
/// Words looked at for trouble: more is a dump.
const TROUBLE_WORDS: usize = 64;
/// Longest word of both tables.
const WORD_BYTES_MAX: usize = 11;

/// The level of a message with its syslog priority, if it has one. O(words).
pub(super) fn of(priority: Option<u8>, message: &str) -> Severity {
    if let Some(priority) = priority {
        return match priority % 8 {
            0..=2 => Severity::Fatal,
            3 => Severity::Error,
            4 => Severity::Warn,
            7 => Severity::Debug,
            _ => Severity::Info,
        };
    }
    stated(message).unwrap_or_else(|| implied(message))
}

fn stated(message: &str) -> Option<Severity> {
    message.split_ascii_whitespace().take(LEVEL_WORDS).find_map(|token| {
        let value = token.strip_prefix("level=").or_else(|| token.strip_prefix("lvl="));
        let word = value.unwrap_or(token).trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let is_marked = value.is_some()
            || (token.len() > word.len() && token.starts_with(['[', '<', '(']))
            || token.ends_with(':')
            || word.bytes().all(|byte| byte.is_ascii_uppercase());
        if is_marked { lookup(&LEVELS, word) } else { None }
    })
}

fn implied(message: &str) -> Severity {
    let words = message.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let worst = words.take(TROUBLE_WORDS).filter_map(|word| lookup(&TROUBLE, word)).max();
    worst.unwrap_or(Severity::Info)
}

fn lookup(table: &[(&str, Severity)], word: &str) -> Option<Severity> {
    if word.len() < 3 || word.len() > WORD_BYTES_MAX {
        return None;
    }
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, severity)| *severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (priority, message, expected) in [
            (Some(34), "x", Severity::Fatal),
            (Some(14), "error in a line whose priority says info", Severity::Info),
            (None, "INFO main: 0 errors found", Severity::Info),
            (None, "[warn] child init", Severity::Warn),
            (None, "nova.api level=error msg=x", Severity::Error),
            (None, "kernel: Buffer I/O error on dev sda", Severity::Error),
            (None, "kernel: BUG: soft lockup", Severity::Fatal),
            (None, "sshd[1]: Failed password for root", Severity::Error),
            (None, "sshd[1]: Permission denied", Severity::Warn),
            (None, "systemd[1]: Started terror detection.", Severity::Info),
            (None, "DEBUG starting", Severity::Debug),
            (None, "", Severity::Info),
        ] {
            assert_eq!(of(priority, message), expected, "{message}");
        }
    }
}
