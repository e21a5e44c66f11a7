//! Masking: one pass over the bytes of a word that puts `<*>` where numbers, hexadecimal words, addresses, identifiers and
//! paths stand. No patterns: this runs for every word of every line.

/// Stands for any value in a template.
pub const WILDCARD: &str = "<*>";

/// Appends `token` (a word without spaces) to `out`, its values masked. O(length).
///
/// Neighbouring values joined by one of `.:,-/+` become one: an address with its port, a date, a UUID are one `<*>`.
pub fn mask_token(token: &str, out: &mut String) {
    let bytes = token.as_bytes();
    if !bytes.iter().any(|byte| byte.is_ascii_digit() || *byte == b'/') {
        out.push_str(token);
        return;
    }
    let mut masked = Masked { begin: out.len(), out, last_end: None };
    let mut position = 0;
    while position < bytes.len() {
        let rest = &token[position..];
        position += if let Some(length) =
            uuid(rest.as_bytes()).or_else(|| address(bytes, position)).or_else(|| path(bytes, position))
        {
            masked.value();
            length
        } else if bytes[position].is_ascii_alphanumeric() {
            let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            masked.word(&rest[..length]);
            length
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            masked.out.push_str(&rest[..length]);
            length
        };
    }
}

/// The output, with where its last value ended.
struct Masked<'a> {
    out: &'a mut String,
    begin: usize,
    last_end: Option<usize>,
}

impl Masked<'_> {
    /// Adds a value, or lets it melt into the one before.
    fn value(&mut self) {
        if let Some(end) = self.last_end {
            let between = &self.out.as_bytes()[end..];
            if between.is_empty() || (between.len() == 1 && b".:,-/+".contains(&between[0])) {
                self.out.truncate(end);
                return;
            }
        }
        // A sign belongs to the number: `blk_-16` and `blk_16` are one template.
        let so_far = &self.out.as_bytes()[self.begin..];
        let (sign, before) = match so_far {
            [.., before, sign] => (*sign, *before),
            [sign] => (*sign, b' '),
            [] => (b' ', b' '),
        };
        if matches!(sign, b'-' | b'+') && !before.is_ascii_alphanumeric() {
            self.out.pop();
        }
        self.out.push_str(WILDCARD);
        self.last_end = Some(self.out.len());
    }

    /// Adds a run of letters and digits.
    fn word(&mut self, word: &str) {
        if is_value(word.as_bytes()) {
            self.value();
            return;
        }
        // Letters stay, digits go: `eth0` becomes `eth<*>`.
        let mut rest = word;
        while !rest.is_empty() {
            let letters = rest.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
            self.out.push_str(&rest[..letters]);
            let digits = rest[letters..].bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                self.value();
            }
            rest = &rest[letters + digits..];
        }
    }
}

/// A whole run that is a value: digits with at most three letters of a unit, or a hexadecimal number.
fn is_value(word: &[u8]) -> bool {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && word.len() - digits <= 3 && word[digits..].iter().all(u8::is_ascii_alphabetic) {
        return true;
    }
    let hex = word.strip_prefix(b"0x").unwrap_or(word);
    let has_digit = word.iter().any(u8::is_ascii_digit);
    // Six: shorter ones are words with a number, such as `fb0` or `cafe1`.
    has_digit && (hex.len() >= 6 || hex.len() < word.len()) && hex.iter().all(u8::is_ascii_hexdigit)
}

/// Length of a UUID at the begin.
fn uuid(bytes: &[u8]) -> Option<usize> {
    let candidate = bytes.get(..36)?;
    let fits = candidate.iter().enumerate().all(|(position, byte)| match position {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(36)
}

/// Length of a MAC or IPv6 address, or of a time of day: hexadecimal groups of at most four digits with two colons or more.
fn address(bytes: &[u8], position: usize) -> Option<usize> {
    if position > 0 && bytes[position - 1].is_ascii_alphanumeric() {
        return None;
    }
    let rest = &bytes[position..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_hexdigit() || **byte == b':').count();
    let (candidate, after) = rest.split_at(length);
    let is_address = candidate.split(|byte| *byte == b':').count() >= 3
        && !after.first().is_some_and(u8::is_ascii_alphanumeric)
        && candidate.iter().any(u8::is_ascii_digit)
        && candidate.split(|byte| *byte == b':').all(|group| group.len() <= 4);
    // A colon at the end belongs to the sentence.
    is_address.then(|| length - usize::from(candidate.ends_with(b":")))
}

/// Length of an absolute path that begins at `position`; a lone slash is none.
fn path(bytes: &[u8], position: usize) -> Option<usize> {
    let begins = position == 0 || b"=(\"'[<:,".contains(&bytes[position - 1]);
    if bytes[position] != b'/' || !begins {
        return None;
    }
    let length = bytes[position..].iter().take_while(|byte| !b")]\"',;>".contains(byte)).count();
    // A colon or a full stop at the end belongs to the sentence.
    let trailing = bytes[position..position + length].iter().rev().take_while(|byte| b":.".contains(byte)).count();
    (length - trailing > 1).then_some(length - trailing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (line, expected) in [
            ("Receiving block blk_-1608 src: /10.250.19.102:54106", "Receiving block blk_<*> src: <*>"),
            ("blk_1608", "blk_<*>"),
            ("pid=4711, uid=0", "pid=<*>, uid=<*>"),
            ("sshd[123]: from 192.168.0.1 port 22", "sshd[<*>]: from <*> port <*>"),
            ("eth0: 1000Mbps full duplex", "eth<*>: <*>Mbps full duplex"),
            ("took 12ms, 3.5% of 1,024KB", "took <*>, <*>% of <*>"),
            ("at 0xffff8800 and deadbeef01", "at <*> and <*>"),
            ("[instance: b9000564-fe1a-409b-b8cc-1e88b294cd1d]", "[instance: <*>]"),
            ("req-b9000564-fe1a-409b-b8cc-1e88b294cd1d", "req-<*>"),
            ("open '/etc/passwd': denied", "open '<*>': denied"),
            ("read /var/log/x.log: done.", "read <*>: done."),
            ("mac 52:54:00:12:34:56 fe80::5054:ff:fe12:3456", "mac <*> <*>"),
            ("2026-11-22T12:00:01.5 x", "<*>T<*> x"),
            ("no values here, naïve / or", "no values here, naïve / or"),
            ("", ""),
        ] {
            let masked: Vec<String> = line
                .split(' ')
                .map(|token| {
                    let mut out = String::new();
                    mask_token(token, &mut out);
                    out
                })
                .collect();
            assert_eq!(masked.join(" "), expected, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_leaves_no_digit(token in "\\PC{0,60}") {
            let mut out = String::new();
            mask_token(&token, &mut out);
            proptest::prop_assert!(!out.bytes().any(|byte| byte.is_ascii_digit()));
        }
    }
}
