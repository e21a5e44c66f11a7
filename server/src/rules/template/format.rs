//! Numbers and `printf` as Go writes them, because texts in pages and mails should not change with the move from Prometheus.

use super::Fault;
use super::value::Value;

/// Widest field and finest precision that `printf` honours.
const WIDTH_MAX: usize = 256;

/// A float as Go's `%v` writes it: the shortest digits that read back, with an exponent below -4 and from 6 on.
pub fn number(value: f64) -> String {
    general(value, None)
}

/// Go's `%g`, with the shortest digits where no precision is given.
pub(super) fn general(value: f64, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return not_finite(value);
    }
    let scientific = match precision {
        None => format!("{value:e}"),
        Some(digits) => format!("{value:.*e}", digits.max(1) - 1),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    // Go decides with a precision of six where the shortest digits were asked for.
    let limit = precision.map_or(6, |digits| digits.max(1) as i32);
    if exponent < -4 || exponent >= limit {
        return format!("{mantissa}e{}", exponent_text(exponent));
    }
    let negative = mantissa.starts_with('-');
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let plain = place_point(&digits, exponent);
    if negative { format!("-{plain}") } else { plain }
}

fn place_point(digits: &str, exponent: i32) -> String {
    if exponent < 0 {
        return format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let before = exponent as usize + 1;
    if digits.len() <= before {
        return format!("{digits}{}", "0".repeat(before - digits.len()));
    }
    format!("{}.{}", &digits[..before], &digits[before..])
}

fn exponent_text(exponent: i32) -> String {
    format!("{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Go's `%e`.
pub(super) fn scientific(value: f64, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return not_finite(value);
    }
    let text = match precision {
        None => format!("{value:e}"),
        Some(digits) => format!("{value:.digits$e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{mantissa}e{}", exponent_text(exponent.parse().unwrap_or(0)))
}

fn not_finite(value: f64) -> String {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN".to_owned(),
        (_, true) => "+Inf".to_owned(),
        _ => "-Inf".to_owned(),
    }
}

/// What stands between `%` and the verb.
#[derive(Default)]
struct Spec<'a> {
    /// Any of `-`, `+`, `0`, space and `#`.
    flags: &'a str,
    width: usize,
    precision: Option<usize>,
}

/// Go's `printf`. A verb that does not fit its argument writes Go's `%!verb(type=value)`, it does not fail.
pub(super) fn printf(arguments: &[Value]) -> Result<String, Fault> {
    let Some((Value::Text(text), values)) = arguments.split_first() else {
        return Err(Fault::Value("printf wants a format first".to_owned()));
    };
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let spec = read_spec(&mut rest);
        let Some(verb) = rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => pad(&mut out, &spec, &verb_text(verb, &spec, value)),
            None => out.push_str(&["%!", &verb.to_string(), "(MISSING)"].concat()),
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = values.map(|value| format!("{}={value}", value.type_name())).collect();
    if !extra.is_empty() {
        out.push_str(&["%!(EXTRA ", &extra.join(", "), ")"].concat());
    }
    Ok(out)
}

fn read_spec<'a>(rest: &mut &'a str) -> Spec<'a> {
    let length = rest.bytes().take_while(|b| b"-+0 #".contains(b)).count();
    let mut spec = Spec { flags: &rest[..length], ..Spec::default() };
    *rest = &rest[length..];
    spec.width = read_digits(rest).unwrap_or(0);
    if let Some(after) = rest.strip_prefix('.') {
        *rest = after;
        spec.precision = Some(read_digits(rest).unwrap_or(0));
    }
    spec
}

fn read_digits(rest: &mut &str) -> Option<usize> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let digits = &rest[..length];
    *rest = &rest[length..];
    (length > 0).then(|| digits.parse().unwrap_or(WIDTH_MAX).min(WIDTH_MAX))
}

fn verb_text(verb: char, spec: &Spec<'_>, value: &Value) -> String {
    let signed = |text: String| match spec.flags {
        _ if text.starts_with(['-', '+']) => text,
        flags if flags.contains('+') => format!("+{text}"),
        flags if flags.contains(' ') => format!(" {text}"),
        _ => text,
    };
    match (verb, value) {
        ('s', Value::Text(text)) => text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect(),
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('d', Value::Int(number)) => signed(number.to_string()),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('f' | 'F', Value::Float(number)) if !number.is_finite() => not_finite(*number),
        ('f' | 'F', Value::Float(number)) => signed(format!("{number:.*}", spec.precision.unwrap_or(6))),
        ('e', Value::Float(number)) => signed(scientific(*number, Some(spec.precision.unwrap_or(6)))),
        ('g' | 'v', Value::Float(number)) => signed(general(*number, spec.precision)),
        ('v', _) => value.to_string(),
        _ => format!("%!{verb}({}={value})", value.type_name()),
    }
}

fn pad(out: &mut String, spec: &Spec<'_>, text: &str) {
    let missing = spec.width.saturating_sub(text.chars().count());
    if spec.flags.contains('-') {
        out.push_str(text);
        out.push_str(&" ".repeat(missing));
    } else if spec.flags.contains('0') {
        let sign = usize::from(text.starts_with(['-', '+']));
        out.push_str(&text[..sign]);
        out.push_str(&"0".repeat(missing));
        out.push_str(&text[sign..]);
    } else {
        out.push_str(&" ".repeat(missing));
        out.push_str(text);
    }
}
