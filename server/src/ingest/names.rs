//! OpenTelemetry's names as Prometheus': the rules of the specification's page «Prometheus and OpenMetrics compatibility», for
//! metric names with unit and type suffixes, and for label names. Pure text, no allocation beyond the answer.

/// What a metric is, as far as its name shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A monotonic sum: the name ends in `_total`.
    Counter,
    /// A gauge: the unit `1` shows as `_ratio`.
    Gauge,
    /// Histograms and summaries.
    Other,
}

/// Units that OpenTelemetry writes in short, and their words.
const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", ""),
];

/// Units after a slash.
const PER_UNITS: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The Prometheus name of a metric. Empty where the name has no letter or digit.
pub fn metric_name(name: &str, unit: &str, shape: Shape) -> String {
    let mut tokens: Vec<String> = split(name).map(str::to_owned).collect();
    if tokens.is_empty() {
        return String::new();
    }
    let (unit_words, per_words) = unit_words(unit);
    for words in [unit_words, per_words] {
        // A name that says its unit already does not say it twice.
        if words.last().is_some_and(|last| !tokens.contains(last)) {
            tokens.extend(words);
        }
    }
    let suffix = match shape {
        Shape::Counter => Some("total"),
        Shape::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(suffix) = suffix {
        tokens.retain(|token| token != suffix);
        tokens.push(suffix.to_owned());
    }
    let joined = tokens.join("_");
    if joined.starts_with(|first: char| first.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|token| !token.is_empty())
}

/// The words that a unit adds: its own, and `per` with the one after the slash.
fn unit_words(unit: &str) -> (Vec<String>, Vec<String>) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let known = |unit: &str, table: &[(&str, &str)]| {
        let unit = unit.trim();
        // Annotations such as `{requests}` are for people.
        if unit.contains('{') {
            return Vec::new();
        }
        let word = table.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, word)| word);
        split(word).map(str::to_owned).collect()
    };
    let mut per = known(per, &PER_UNITS);
    if !per.is_empty() {
        per.insert(0, "per".to_owned());
    }
    (known(main, &UNITS), per)
}

/// The Prometheus name of a label: what is not a letter, digit or underscore becomes one.
pub fn label_name(name: &str) -> String {
    let mut out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if out.starts_with(|first: char| first.is_ascii_digit()) {
        out.insert_str(0, "key_");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_follow_the_specification() {
        for (name, unit, shape, expected) in [
            ("system.cpu.time", "s", Shape::Counter, "system_cpu_time_seconds_total"),
            ("node_cpu_seconds_total", "s", Shape::Counter, "node_cpu_seconds_total"),
            ("node_cpu_seconds_total", "", Shape::Counter, "node_cpu_seconds_total"),
            ("system.memory.usage", "By", Shape::Gauge, "system_memory_usage_bytes"),
            ("memory_bytes", "By", Shape::Gauge, "memory_bytes"),
            ("system.cpu.utilization", "1", Shape::Gauge, "system_cpu_utilization_ratio"),
            ("requests", "{request}", Shape::Counter, "requests_total"),
            ("total.errors", "", Shape::Counter, "errors_total"),
            ("fan.speed", "m/s", Shape::Gauge, "fan_speed_meters_per_second"),
            ("rate", "By/s", Shape::Gauge, "rate_bytes_per_second"),
            ("battery", "%", Shape::Gauge, "battery_percent"),
            ("2xx.count", "", Shape::Other, "_2xx_count"),
            ("temp°", "Cel", Shape::Gauge, "temp_celsius"),
            ("rule:sum", "", Shape::Gauge, "rule:sum"),
            ("...", "", Shape::Gauge, ""),
        ] {
            assert_eq!(metric_name(name, unit, shape), expected, "{name} {unit}");
        }
    }

    #[test]
    fn label_names_follow_the_specification() {
        for (name, expected) in
            [("http.method", "http_method"), ("9lives", "key_9lives"), ("_ok", "_ok"), ("größe", "gr__e"), ("", "")]
        {
            assert_eq!(label_name(name), expected);
        }
    }
}
