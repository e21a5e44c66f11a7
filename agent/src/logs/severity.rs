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
        if is_marked { lookup(&LEVELS, LEVEL_BEGINS, word.as_bytes()) } else { None }
    })
}

fn implied(message: &str) -> Severity {
    // No byte of a letter beyond ASCII is one of ASCII: cutting bytes cuts the same words.
    let words = message.as_bytes().split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let worst = words.take(TROUBLE_WORDS).filter_map(|word| lookup(&TROUBLE, TROUBLE_BEGINS, word)).max();
    worst.unwrap_or(Severity::Info)
}

/// With which letters the words of each table begin: most words of a line need no more than this look.
const LEVEL_BEGINS: u32 = begins(&LEVELS);
const TROUBLE_BEGINS: u32 = begins(&TROUBLE);

/// A bit for each letter of the alphabet with which a word of the table begins.
const fn begins(table: &[(&str, Severity)]) -> u32 {
    let (mut letters, mut place) = (0, 0);
    while place < table.len() {
        letters |= bit(table[place].0.as_bytes()[0]);
        place += 1;
    }
    letters
}

/// The bit of a letter, in either case; digits share those of some letters, which costs a look and no more.
const fn bit(letter: u8) -> u32 {
    1 << (letter & 0x1f)
}

fn lookup(table: &[(&str, Severity)], begins: u32, word: &[u8]) -> Option<Severity> {
    if word.len() < 3 || word.len() > WORD_BYTES_MAX || begins & bit(word[0]) == 0 {
        return None;
    }
    table.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(word)).map(|(_, severity)| *severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn never_panics(line in "([ :=<\\[é]|level=|lvl=|ERR|[a-zA-Z0-9é]{0,12}|\\PC){0,20}", priority in proptest::option::of(0u8..)) {
            of(priority, &line);
        }
    }

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
