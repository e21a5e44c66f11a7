//! Performance data of monitoring plugins, as their development guidelines write it: after a `|`,
//! `'label'=value[unit];[warn];[crit];[min];[max]`, separated by blanks. Pure.

/// Most values of one run.
pub(super) const VALUES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 128;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    /// What it is.
    pub(super) label: String,
    /// In what: empty, `s`, `ms`, `us`, `%`, `B`, `KB`, `MB`, `GB`, `TB`, `c` or whatever the plugin writes.
    pub(super) unit: String,
    /// How much.
    pub(super) number: f64,
}

/// The values that an output holds, each label once; what is not understood is left out.
pub(super) fn values(output: &str) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    // The first line has its own part; after a `|` in a later line all lines that follow are performance data.
    let mut is_long = false;
    for (at, line) in output.lines().enumerate() {
        let part = if is_long { Some(line) } else { line.split_once('|').map(|(_, part)| part) };
        is_long |= at > 0 && part.is_some();
        let mut rest = part.unwrap_or_default().trim_start();
        while let Some((value, after)) = next(rest) {
            rest = after.trim_start();
            let Some(value) = value else { continue };
            if values.len() == VALUES_MAX {
                return values;
            }
            if !values.iter().any(|other| other.label == value.label) {
                values.push(value);
            }
        }
    }
    values
}

/// The value that begins here, `None` where it is not one, and what follows. `None` at the end.
fn next(text: &str) -> Option<(Option<Value>, &str)> {
    if text.is_empty() {
        return None;
    }
    let (label, rest) = match text.strip_prefix('\'') {
        Some(quoted) => quoted_label(quoted)?,
        None => match text.find(['=', ' ', '\t']) {
            Some(end) => (text[..end].to_owned(), &text[end..]),
            None => return None,
        },
    };
    let Some(rest) = rest.strip_prefix('=') else {
        let end = rest.find([' ', '\t']).unwrap_or(rest.len());
        return Some((None, &rest[end..]));
    };
    let end = rest.find([' ', '\t']).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let word = word.split(';').next().unwrap_or_default();
    let digits = word.find(|c: char| !matches!(c, '0'..='9' | '.' | ',' | '-' | '+')).unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    // Some plugins print their locale's comma.
    let number: Option<f64> = number.replace(',', ".").parse().ok();
    let is_sound = !label.is_empty() && label.len() <= LABEL_BYTES_MAX && unit.len() <= 16;
    let value = number.filter(|_| is_sound).map(|number| Value { label, unit: unit.to_owned(), number });
    Some((value, after))
}

/// A label in quotes, in which a quote is written twice.
fn quoted_label(text: &str) -> Option<(String, &str)> {
    let mut label = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                label.push('\'');
                rest = after;
            }
            None => return Some((label, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(output: &str) -> String {
        let values = values(output);
        values.iter().map(|v| format!("{}={}{}", v.label, v.number, v.unit)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn values_are_read_and_the_rest_is_left_out() {
        assert_eq!(shown("OK - load average: 0.02|load1=0.020;5.000;10.000;0; load5=1,5;;"), "load1=0.02 load5=1.5");
        assert_eq!(
            shown("DISK OK | /=2643MB;5948;5958;0;5968\nmore\nlast | /boot=68MB\n/home=1GB"),
            "/=2643MB /boot=68MB /home=1GB"
        );
        assert_eq!(
            shown("PING|'round trip'=0.5ms 'it''s'=3% bad x=U y=c =1 time=1 time=2"),
            "round trip=0.5ms it's=3% time=1"
        );
        assert_eq!(shown("no data\nhere"), "");
        assert_eq!(
            values(&format!("|{}", (0..200).map(|n| format!("v{n}=1")).collect::<Vec<_>>().join(" "))).len(),
            VALUES_MAX
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn never_panics(text in "\\PC{0,200}", plain in "[|'=; \na-c0-9.,U-]{0,200}") {
            prop_assert!(values(&text).len() <= VALUES_MAX && values(&plain).len() <= VALUES_MAX);
        }
    }
}
