//! Secrets out of lines, before anything else sees them. One pass looks for what every secret has beside it; the few lines
//! that have it are looked at byte by byte.
//!
//! Masked are values of keys that name a secret, credentials in URLs and headers, well-known kinds of tokens, and private
//! keys over several lines. Masking too much is harmless, too little is not.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// What stands where a secret stood.
const MASK: &str = "***";
/// Words in a key that make its value a secret.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "private_key",
    "credential",
    "authorization",
    "cookie",
];
/// Keys that are secrets only as a whole: as a part they are in too many harmless words.
const SECRET_KEYS: [&str; 4] = ["pwd", "pass", "psk", "pin"];
/// How well-known tokens begin, and the least length of one.
const TOKENS: [(&str, usize); 12] = [
    ("AKIA", 20),
    ("ASIA", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("eyJ", 30),
    ("sk_live_", 20),
];
/// Words before credentials in a header.
const SCHEMES: [&str; 4] = ["bearer", "basic", "digest", "negotiate"];
/// What every other rule looks for, in either case.
const OTHER_TRACES: [&str; 5] = [SCHEMES[0], "-u", "-p", "://", "-----BEGIN"];
/// What may stand between a key and its value.
const BEHIND_KEY: [&str; 5] = ["=", ":", "\"", "'", " "];
/// Finds the lines worth a closer look. A table of about 60 KiB, once for all sources: a list of states would take half as
/// long again on every line.
static TRACES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let keys = SECRET_KEYS.iter().flat_map(|key| BEHIND_KEY.map(|behind| format!("{key}{behind}")));
    let tokens = TOKENS.iter().map(|(begin, _)| *begin);
    let others = SECRET_WORDS.into_iter().chain(tokens).chain(OTHER_TRACES).map(str::to_owned);
    automaton(keys.chain(others).collect(), AhoCorasickKind::DFA)
});
/// Finds the words in a key.
static WORDS: LazyLock<AhoCorasick> =
    LazyLock::new(|| automaton(SECRET_WORDS.map(str::to_owned).to_vec(), AhoCorasickKind::ContiguousNFA));
/// A private key has at most about a hundred lines; an END that never comes must not hide a file for ever.
const KEY_LINES_MAX: u32 = 200;
/// Shortest word that is taken for a line of a key where none is known to have begun.
const KEY_WORD_BYTES_MIN: usize = 16;
/// Longest key that is looked at.
const KEY_BYTES_MAX: usize = 64;

/// A text of one line that is no line of a file, without its secrets. O(length).
pub fn masked(text: &str) -> Cow<'_, str> {
    SecretMask::default().mask(text)
}

/// Masks the lines of one source; remembers whether it is inside a private key.
#[derive(Debug, Clone, Default)]
pub(super) struct SecretMask {
    key: Key,
}

/// Where a source is.
#[derive(Debug, Clone, Copy, Default)]
enum Key {
    #[default]
    Outside,
    /// Inside a private key, for so many lines more at most.
    Inside(u32),
    /// Met in the middle, after a restart or when others took its place: what looks like a key's line is one, for so many lines more.
    Unknown { left: u32, was_key: bool },
}

impl SecretMask {
    /// For a source that may have begun before this: nobody knows whether it is inside a private key.
    pub(super) fn met() -> SecretMask {
        SecretMask { key: Key::Unknown { left: KEY_LINES_MAX, was_key: false } }
    }

    /// Whether the next line is part of a private key.
    pub(super) fn is_inside_key(&self) -> bool {
        matches!(self.key, Key::Inside(_) | Key::Unknown { was_key: true, .. })
    }

    /// The line without its secrets. O(length).
    pub(super) fn mask<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        if self.is_in_key(line) {
            return Cow::Borrowed(MASK);
        }
        if !TRACES.is_match(line) {
            return Cow::Borrowed(line);
        }
        let secrets = self.find(line);
        if secrets.is_empty() {
            return Cow::Borrowed(line);
        }
        let mut masked = String::with_capacity(line.len());
        let mut position = 0;
        for secret in secrets {
            // Two rules may find the same secret; both begin and end at ASCII bytes.
            if secret.end <= position {
                continue;
            }
            if secret.start >= position {
                masked.push_str(&line[position..secret.start]);
                masked.push_str(MASK);
            }
            position = secret.end;
        }
        masked.push_str(&line[position..]);
        Cow::Owned(masked)
    }

    /// Whether the line is part of a key that began in one before it.
    fn is_in_key(&mut self, line: &str) -> bool {
        // Certificates of others may end in between, and another key may begin in the same record.
        let end = line.rfind("-----END").filter(|end| line[*end..].contains("PRIVATE KEY"));
        let is_end = end.is_some_and(|end| !line[end..].contains("-----BEGIN"));
        match self.key {
            Key::Outside => false,
            Key::Inside(left) => {
                self.key = if is_end || left <= 1 { Key::Outside } else { Key::Inside(left - 1) };
                true
            }
            Key::Unknown { left, was_key } => {
                let is_key = end.is_some() || is_key_line(line, was_key);
                let goes_on = is_key && !is_end && left > 1;
                self.key = if goes_on { Key::Unknown { left: left - 1, was_key: true } } else { Key::Outside };
                is_key
            }
        }
    }

    fn find(&mut self, line: &str) -> Vec<Range<usize>> {
        let bytes = line.as_bytes();
        let mut secrets: Vec<Range<usize>> = Vec::new();
        for (position, byte) in bytes.iter().enumerate() {
            match byte {
                b'=' | b':' => {
                    secrets.extend(after_key(bytes, position));
                    secrets.extend(in_url(bytes, position));
                }
                b' ' | b'\t' | b'\n' => {
                    secrets.extend(after_word(bytes, position));
                    secrets.extend(after_option(bytes, position));
                }
                b'-' if bytes[position..].starts_with(b"-----BEGIN") => {
                    secrets.extend(self.private_key(line, position));
                }
                _ => {}
            }
            let is_word_begin = position == 0 || !bytes[position - 1].is_ascii_alphanumeric();
            if is_word_begin && byte.is_ascii_alphabetic() {
                secrets.extend(token(bytes, position));
            }
        }
        secrets.sort_by_key(|secret| (secret.start, std::cmp::Reverse(secret.end)));
        secrets
    }

    /// From BEGIN to the end of the line, or to its END in the same line.
    fn private_key(&mut self, line: &str, position: usize) -> Option<Range<usize>> {
        let rest = &line[position..];
        if !rest.contains("PRIVATE KEY") {
            return None;
        }
        let Some(end) = rest.find("-----END") else {
            self.key = Key::Inside(KEY_LINES_MAX);
            return Some(position..line.len());
        };
        let after_end = rest[end + 8..].find("-----").map_or(rest.len(), |dashes| end + 8 + dashes + 5);
        Some(position..position + after_end)
    }
}

/// Whether a line ends in what a line of a PEM key is: base64 with letters of both cases and digits. The last line of a key can be
/// a few letters, which `follows` another.
fn is_key_line(line: &str, follows: bool) -> bool {
    let word = line.trim_end().rsplit(char::is_whitespace).next().unwrap_or("").as_bytes();
    let is_base64 =
        !word.is_empty() && word.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    let has = |is: fn(&u8) -> bool| word.iter().any(is);
    let is_mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    is_base64 && (follows || (word.len() >= KEY_WORD_BYTES_MIN && is_mixed))
}

/// The value after `key=`, `key:` or `"key":`, when the key names a secret.
fn after_key(bytes: &[u8], separator: usize) -> Option<Range<usize>> {
    let mut end = separator;
    while end > 0 && matches!(bytes[end - 1], b'"' | b'\'' | b' ') {
        end -= 1;
    }
    if !names_secret(word_before(bytes, end)) {
        return None;
    }
    value_at(bytes, separator + 1)
}

/// The value after `--password `, `"--password", ` and the credentials after `Bearer `.
fn after_word(bytes: &[u8], space: usize) -> Option<Range<usize>> {
    let end = before_quotes(bytes, space);
    let word = word_before(bytes, end);
    let is_scheme = word.eq_ignore_ascii_case(SCHEMES[0].as_bytes());
    let is_option = word.starts_with(b"-") && names_secret(word);
    if is_scheme || is_option { value_at(bytes, after_number(bytes, space + 1)) } else { None }
}

/// Secrets in short options: of `-u user:password` what follows the colon; of the programs that take a password so, the
/// word after `-p` or `-P`, or what is glued to it.
fn after_option(bytes: &[u8], space: usize) -> Option<Range<usize>> {
    let before = word_before(bytes, before_quotes(bytes, space));
    let value = || value_at(bytes, after_number(bytes, space + 1));
    let is_from = |programs: &[&[u8]]| {
        let begin = space.saturating_sub(COMMAND_BYTES_MAX);
        programs.iter().any(|program| bytes[begin..space].windows(program.len()).any(|part| part == *program))
    };
    if matches!(before, b"-u" | b"--user" | b"--proxy-user") {
        let value = value()?;
        let colon = bytes[value.clone()].iter().position(|byte| *byte == b':')?;
        return Some(value.start + colon + 1..value.end).filter(|secret| !secret.is_empty());
    }
    if matches!(before, b"-p" | b"-P") && is_from(&[b"sshpass", b"ipmitool", b"ipmi-", b"fence_", b"smbclient"]) {
        return value();
    }
    // Its own begin may be quoted, too.
    let option = after_number(bytes, space + 1);
    let option = option + usize::from(matches!(bytes.get(option), Some(b'"' | b'\'')));
    let glued = bytes.get(option..)?.strip_prefix(b"-p")?;
    let is_glued =
        glued.first().is_some_and(|first| !first.is_ascii_whitespace()) && is_from(&[b"mysql", b"mariadb", b"sshpass"]);
    if is_glued { value_at(bytes, option + 2) } else { None }
}

/// How far back the program of an option is looked for.
const COMMAND_BYTES_MAX: usize = 256;

/// Where a word ends whose closing quote and comma stand before `end`.
fn before_quotes(bytes: &[u8], end: usize) -> usize {
    let trailing = bytes[..end].iter().rev().take_while(|byte| b"\"',".contains(byte)).count();
    end - trailing.min(2)
}

/// Behind `a2=`, the number that the audit log gives each word of a command.
fn after_number(bytes: &[u8], position: usize) -> usize {
    let Some(rest) = bytes.get(position..).and_then(|rest| rest.strip_prefix(b"a")) else { return position };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && rest.get(digits) == Some(&b'=') { position + 1 + digits + 1 } else { position }
}

/// Where a value lies that begins at `position` or after one space: to its closing quote, or to the end of the word.
/// A scheme such as `Basic` and the word after it are one value.
fn value_at(bytes: &[u8], position: usize) -> Option<Range<usize>> {
    let mut begin = position;
    while begin < bytes.len() && bytes[begin] == b' ' {
        begin += 1;
    }
    if let Some(quote @ (b'"' | b'\'')) = bytes.get(begin) {
        let inside = &bytes[begin + 1..];
        let mut escaped = false;
        let end = inside.iter().position(|byte| {
            let closes = byte == quote && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        });
        let length = end.unwrap_or(inside.len());
        return (length > 0).then_some(begin + 1..begin + 1 + length);
    }
    let word = |from: usize| bytes[from..].iter().take_while(|byte| !b" \t\n\"',;&)}]".contains(byte)).count();
    let length = word(begin);
    let is_scheme = SCHEMES.iter().any(|scheme| bytes[begin..begin + length].eq_ignore_ascii_case(scheme.as_bytes()));
    if is_scheme && begin + length < bytes.len() {
        let after = begin + length + 1;
        return Some(after..after + word(after)).filter(|range| !range.is_empty());
    }
    (length > 0).then_some(begin..begin + length)
}

/// The password in `scheme://user:password@host`, found at the colon of the scheme; a long user alone is a token.
fn in_url(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let authority = bytes.get(colon..)?.strip_prefix(b"://")?;
    let length = authority.iter().take_while(|byte| !b"/ \t\n\"'<>?#".contains(byte)).count();
    let begin = colon + 3;
    let at = begin + authority[..length].iter().rposition(|byte| *byte == b'@')?;
    match bytes[begin..at].iter().position(|byte| *byte == b':') {
        Some(user) => Some(begin + user + 1..at),
        None => Some(begin..at).filter(|user| user.len() >= 20),
    }
    .filter(|secret| !secret.is_empty())
}

/// A token that shows what it is by how it begins.
fn token(bytes: &[u8], position: usize) -> Option<Range<usize>> {
    let rest = &bytes[position..];
    let (_, least) = TOKENS.iter().find(|(begin, _)| rest.starts_with(begin.as_bytes()))?;
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte)).count();
    (length >= *least).then_some(position..position + length)
}

fn word_before(bytes: &[u8], end: usize) -> &[u8] {
    let window = &bytes[end.saturating_sub(KEY_BYTES_MAX)..end];
    let length = window.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte)).count();
    &window[window.len() - length..]
}

fn names_secret(key: &[u8]) -> bool {
    // The shortest of them.
    key.len() >= 3 && (WORDS.is_match(key) || SECRET_KEYS.iter().any(|word| key.eq_ignore_ascii_case(word.as_bytes())))
}

fn automaton(words: Vec<String>, kind: AhoCorasickKind) -> AhoCorasick {
    let built = AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(kind)).build(words);
    built.expect("a few dozen words of this file are far below the automaton's limits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (line, expected) in [
            ("user=bob password=hunter2 ok", "user=bob password=*** ok"),
            ("DB_PASSWORD: 'two words' next", "DB_PASSWORD: '***' next"),
            (r#"{"client_secret": "a\"b", "x":1}"#, r#"{"client_secret": "***", "x":1}"#),
            ("GET /x?access_token=abc&y=1", "GET /x?access_token=***&y=1"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("authorization=Basic dXNlcjpwYXNz", "authorization=Basic ***"),
            ("sent Bearer abcdef to x", "sent Bearer *** to x"),
            ("mysqldump --password hunter2 -h x", "mysqldump --password *** -h x"),
            ("run [\"mysql\", \"--password\", \"hunter2\"]", "run [\"mysql\", \"--password\", \"***\"]"),
            ("EXECVE a0=\"x\" a1=\"--token\" a2=\"hunter2\"", "EXECVE a0=\"x\" a1=\"--token\" a2=\"***\""),
            ("COMMAND=/usr/bin/mysql -u root -phunter2 -e x", "COMMAND=/usr/bin/mysql -u root -p*** -e x"),
            ("ipmitool -H bmc -U admin -P hunter2 sdr", "ipmitool -H bmc -U admin -P *** sdr"),
            ("curl -u bob:hunter2 https://x", "curl -u bob:*** https://x"),
            ("curl --user 'bob:hunter2' https://x", "curl --user 'bob:***' https://x"),
            ("a trace\n  password=hunter2\n  at x", "a trace\n  password=***\n  at x"),
            ("a trace\n  --passphrase hunter2\n  at x", "a trace\n  --passphrase ***\n  at x"),
            ("ssh -p 22 host", "ssh -p 22 host"),
            ("useradd -u 1000:x", "useradd -u 1000:***"),
            ("clone https://bob:hunter2@git/x.git", "clone https://bob:***@git/x.git"),
            ("clone https://0123456789abcdef0123@git/x", "clone https://***@git/x"),
            ("redis://:p%40ss@host:6379/0", "redis://:***@host:6379/0"),
            ("key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig, ok", "jwt ***, ok"),
            ("wifi psk=\"home sweet\" up", "wifi psk=\"***\" up"),
            ("password=пароль x", "password=*** x"),
            ("password=", "password="),
            ("Failed password for root from 10.0.0.1", "Failed password for root from 10.0.0.1"),
            ("http://host:80/a@b", "http://host:80/a@b"),
            ("spinning: 1 compass: 2", "spinning: 1 compass: 2"),
            ("k=-----BEGIN RSA PRIVATE KEY-----AB-----END RSA PRIVATE KEY----- x", "k=*** x"),
            ("-----BEGIN CERTIFICATE-----AB", "-----BEGIN CERTIFICATE-----AB"),
        ] {
            assert_eq!(SecretMask::default().mask(line), expected, "{line}");
        }
    }

    #[test]
    fn a_private_key_over_lines() {
        let mut mask = SecretMask::default();
        let lines = ["a -----BEGIN PRIVATE KEY-----", "MIIEv", "x== -----END PRIVATE KEY-----", "after"];
        let masked: Vec<String> = lines.iter().map(|line| mask.mask(line).into_owned()).collect();
        assert_eq!(masked, ["a ***", "***", "***", "after"]);
    }

    #[test]
    fn a_private_key_ends_with_its_own_end_alone() {
        let mut mask = SecretMask::default();
        let lines = [
            "-----BEGIN PRIVATE KEY-----",
            "-----END CERTIFICATE-----",
            "MIIEv",
            "x -----END PRIVATE KEY----- -----BEGIN RSA PRIVATE KEY-----",
            "MIIEw",
            "-----END RSA PRIVATE KEY-----",
            "after",
        ];
        let shown: Vec<&str> = lines.into_iter().filter(|line| mask.mask(line) == *line).collect();
        assert_eq!(shown, ["after"]);
    }

    #[test]
    fn a_source_met_inside_a_private_key_shows_nothing_of_it() {
        let masked = |lines: &[&str]| -> Vec<String> {
            let mut mask = SecretMask::met();
            lines.iter().map(|line| mask.mask(line).into_owned()).collect()
        };
        let body = "Nov 23 03:00:00 h app: MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
        assert_eq!(masked(&[body, "Nov 23 03:00:00 h app: x4Q=", "-----END PRIVATE KEY-----", "x 1"])[..3], ["***"; 3]);
        assert_eq!(masked(&["-----END PRIVATE KEY-----", body]), ["***", body], "its end was all that was left");
        for line in
            ["disk sda failed", "opened /var/lib/libvirt/images/web", "digest 9f86d081884c7d659a2feaa0c55ad015", ""]
        {
            assert_eq!(masked(&[line, body]), [line, body], "what is no key's line ends the doubt");
        }
        let shown = masked(&vec![body; 300]).iter().filter(|line| *line == body).count();
        assert_eq!(shown, 100, "and it ends in any case");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in "([-=:\"', \nüa-z0-9]|--password|-u|mysql|-p|a1=|://|@|-----BEGIN PRIVATE KEY|eyJ){0,24}") {
            SecretMask::default().mask(&line);
        }

        #[test]
        fn a_line_without_a_trace_has_no_secret(
            line in "([-=:\"', \nü@/]|[a-z]|a1=|bob|--|-U|USER|mysql|-P|pin|PSK|Passw|Pass|Word|passwd|toke|ns?|Basic|bearer|AKIA|ghp_|://|[A-Za-z0-9]{20}|-----BEGIN|PRIVATE KEY){0,16}",
        ) {
            let mut mask = SecretMask::default();
            let found = mask.find(&line);
            proptest::prop_assert!(TRACES.is_match(&line) || (found.is_empty() && !mask.is_inside_key()), "{found:?}");
        }

        #[test]
        fn never_panics_and_never_shows_a_password(
            before in "[ a-z:=\"'ü/@-]{0,12}", secret in "S[0-9]{6}", after in "[ ,;&]\\PC{0,12}",
        ) {
            let line = format!("{before} password={secret}{after}");
            proptest::prop_assert!(!SecretMask::default().mask(&line).contains(&secret));
        }
    }
}
