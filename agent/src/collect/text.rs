//! The Prometheus text format, written: for `petrel-agent --once`, for people and for tests. Never read here.

use std::fmt::Write as _;

use super::{Family, Kind, Point};

/// Renders families in the order given, each with its HELP and TYPE lines. O(output).
pub fn render(families: &[Family]) -> String {
    let mut out = String::with_capacity(families.iter().map(|family| 128 + 96 * family.points.len()).sum());
    for family in families.iter().filter(|family| !family.points.is_empty()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Untyped => "untyped",
        };
        out.push_str("# HELP ");
        out.push_str(&family.name);
        out.push(' ');
        escape(&family.help, false, &mut out);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n# TYPE {} {kind}", family.name);
        for point in &family.points {
            render_point(&family.name, point, &mut out);
        }
    }
    out
}

fn render_point(name: &str, point: &Point, out: &mut String) {
    out.push_str(name);
    for (position, (label, value)) in point.labels.iter().enumerate() {
        out.push(if position == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        escape(value, true, out);
        out.push('"');
    }
    if !point.labels.is_empty() {
        out.push('}');
    }
    out.push(' ');
    match point.value {
        value if value == f64::INFINITY => out.push_str("+Inf"),
        value if value == f64::NEG_INFINITY => out.push_str("-Inf"),
        value => {
            // Writing to a String cannot fail. Rust prints the shortest digits that read back as the same value.
            let _ = write!(out, "{value}");
        }
    }
    out.push('\n');
}

fn escape(text: &str, quotes: bool, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            letter => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn escapes_and_special_values() {
        let mut odd = Family::new(Kind::Untyped, "odd", "back\\slash, \"quote\"\nnewline");
        odd.push(&[("a", "x\\y\"z\n"), ("b", "")], f64::NAN);
        odd.push(&[("a", "ü")], f64::NEG_INFINITY);
        let families = [
            odd,
            Family::new(Kind::Counter, "big_total", "Big.").with(1_418_183_276.0),
            Family::new(Kind::Gauge, "empty", "Left out."),
        ];
        expect![[r#"
            # HELP odd back\\slash, "quote"\nnewline
            # TYPE odd untyped
            odd{a="x\\y\"z\n",b=""} NaN
            odd{a="ü"} -Inf
            # HELP big_total Big.
            # TYPE big_total counter
            big_total 1418183276
        "#]]
        .assert_eq(&render(&families));
    }
}
