//! What literals mean: numbers, durations and quoted strings, read as Go reads them.

/// The character that stands for a byte that is no UTF-8: strings may hold any bytes, series' labels only text.
const STRAY: u32 = 0x10_FF00;

/// Most seconds of a duration: what Go's nanoseconds hold, 292 years.
pub(in crate::query) const SECONDS_MAX: f64 = 9_223_372_036.0;

/// A number: decimal, hexadecimal, octal after a 0, with underscores between digits.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let radix = match plain.get(..2) {
        Some("0x" | "0X") => 16,
        Some(_) if plain.starts_with('0') => 8,
        _ => 10,
    };
    let digits = if radix == 16 { &plain[2..] } else { plain.as_str() };
    if let Ok(whole) = i64::from_str_radix(digits, radix) {
        return Ok(whole as f64);
    }
    let float: f64 = if radix == 16 { f64::INFINITY } else { plain.parse().unwrap_or(f64::INFINITY) };
    let infinite = plain.eq_ignore_ascii_case("inf");
    if float.is_infinite() && !infinite {
        return Err(format!("error parsing number: strconv.ParseFloat: parsing {text:?}: value out of range"));
    }
    Ok(float)
}

/// A duration such as `1h30m` in seconds. Units come once each, the longest first.
pub(super) fn duration(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, u128); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let wrong = || format!("not a valid duration string: {text:?}");
    let mut rest = text;
    let mut total: u128 = 0;
    let mut unit_at = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = &rest[digits..unit_end];
        let found = UNITS[unit_at..].iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let many: u128 = rest[..digits].parse().map_err(|_| "duration out of range".to_owned())?;
        total = many.saturating_mul(UNITS[unit_at + found].1).saturating_add(total);
        unit_at += found + 1;
        rest = &rest[unit_end..];
    }
    let seconds = total as f64 / 1000.0;
    if seconds > SECONDS_MAX { Err("duration out of range".to_owned()) } else { Ok(seconds) }
}

/// What a quoted string holds. The lexer has checked its escapes.
pub(super) fn unquote(text: &str) -> String {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    if text.starts_with('`') || !inner.contains('\\') {
        return inner.to_owned();
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let mut push = |c: char| bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        if c != '\\' {
            push(c);
            continue;
        }
        let escaped = chars.next().unwrap_or('\\');
        let mut code = |digits: usize, radix: u32, first: Option<char>| {
            let rest = digits - usize::from(first.is_some());
            first
                .into_iter()
                .chain(chars.by_ref().take(rest))
                .fold(0, |code, c| code * radix + c.to_digit(radix).unwrap_or(0))
        };
        match escaped {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            'x' => bytes.push(code(2, 16, None) as u8),
            '0'..='7' => bytes.push(code(3, 8, Some(escaped)) as u8),
            'u' => push(char::from_u32(code(4, 16, None)).unwrap_or(char::REPLACEMENT_CHARACTER)),
            'U' => push(char::from_u32(code(8, 16, None)).unwrap_or(char::REPLACEMENT_CHARACTER)),
            other => push(other),
        }
    }
    text_of(&bytes)
}

fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(STRAY + u32::from(*byte))));
    }
    text
}

/// A regular expression with braces that do not tell how often as themselves, which is how Go takes them.
pub(in crate::query) fn literal_braces(pattern: &str) -> String {
    let mut literal = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut escaped = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let counts = after.find('}').is_some_and(|end| {
            let inner = &after[..end];
            inner.starts_with(|c: char| c.is_ascii_digit()) && inner.chars().all(|c| c.is_ascii_digit() || c == ',')
        });
        let names_class = ["\\p", "\\P", "\\x"].iter().any(|class| literal.ends_with(class));
        if c == '{' && !escaped && !counts && !names_class {
            literal.push('\\');
        }
        literal.push(c);
        escaped = c == '\\' && !escaped;
        rest = after;
    }
    literal
}

/// Whether a name is one that a label can have: not empty, and nothing but text.
pub(in crate::query) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| stray(c).is_some())
}

/// A string in quotes, as Go writes it.
pub(in crate::query) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match (c, stray(c)) {
            (_, Some(byte)) => push_byte(&mut quoted, byte),
            ('"', _) => quoted.push_str("\\\""),
            ('\\', _) => quoted.push_str("\\\\"),
            ('\n', _) => quoted.push_str("\\n"),
            ('\r', _) => quoted.push_str("\\r"),
            ('\t', _) => quoted.push_str("\\t"),
            ('\u{7}', _) => quoted.push_str("\\a"),
            ('\u{8}', _) => quoted.push_str("\\b"),
            ('\u{b}', _) => quoted.push_str("\\v"),
            ('\u{c}', _) => quoted.push_str("\\f"),
            (c, _) if u32::from(c) < 0x80 && c.is_control() => push_byte(&mut quoted, c as u8),
            (c, _) => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A byte as an escape sequence.
fn push_byte(text: &mut String, byte: u8) {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    text.extend(['\\', 'x', digit(byte >> 4), digit(byte & 15)]);
}

/// The byte that a character stands for, where it stands for one.
fn stray(c: char) -> Option<u8> {
    u32::from(c).checked_sub(STRAY).and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        let read = |text: &str| number(text).map_err(|_| "no");
        for (text, want) in [
            ("1_000", Ok(1000.0)),
            ("0x1F", Ok(31.0)),
            ("0755", Ok(493.0)),
            ("08", Ok(8.0)),
            ("0.5e-3", Ok(0.0005)),
            ("1_0.5", Ok(10.5)),
            ("Inf", Ok(f64::INFINITY)),
            ("1e999", Err("no")),
            ("0xffffffffffffffff", Err("no")),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }

    #[test]
    fn durations_have_their_units_in_order() {
        assert_eq!(duration("1y2w3d4h5m6s7ms"), Ok(33_019_506.007));
        assert_eq!(duration("5m1h"), Err("not a valid duration string: \"5m1h\"".to_owned()));
        assert_eq!(duration("1hs"), Err("not a valid duration string: \"1hs\"".to_owned()));
        assert_eq!(duration("300y"), Err("duration out of range".to_owned()));
    }

    #[test]
    fn strings_read_back_what_was_quoted() {
        assert_eq!(unquote(r#""a\x41\101\u00e4\n\"'""#), "aAAä\n\"'");
        assert_eq!(unquote(r"`a\n`"), "a\\n");
        let stray = unquote(r#""a\xc5z""#);
        assert!(!is_label_name(&stray) && is_label_name("ä b"));
        assert_eq!(quoted(&stray), r#""a\xc5z""#);
    }
}
