//! Runs the scenarios of this folder: `load` gives series, `eval` a query and its result, `clear` forgets. The language is
//! the one of Prometheus's own tests, as far as these files use it.

pub(crate) mod memory;
mod reads;

use std::fmt::Write as _;

use super::parse::DEPTH_MAX;
use super::{Answer, Limits, StepRange, Value, instant, number, parse, range};
use memory::Memory;

#[test]
fn selectors() {
    run("selectors", include_str!("selectors.test"));
}

#[test]
fn operators() {
    run("operators", include_str!("operators.test"));
}

#[test]
fn aggregations() {
    run("aggregations", include_str!("aggregations.test"));
}

#[test]
fn functions() {
    run("functions", include_str!("functions.test"));
}

#[test]
fn durations() {
    run("durations", include_str!("durations.test"));
}

#[test]
fn edges() {
    run("edges", include_str!("edges.test"));
}

#[test]
fn info() {
    run("info", include_str!("info.test"));
}

#[test]
fn histograms() {
    run("histograms", include_str!("histograms.test"));
}

/// The guide's page on the language.
const GUIDE: &str = include_str!("../../../../docs/guide/promql.md");

#[test]
fn the_guides_examples_are_right_and_name_every_function() {
    let blocks: Vec<&str> =
        GUIDE.split("\n```promql\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(blocks.len() >= 4, "the guide has {} examples", blocks.len());
    run("the guide", &blocks.join("\n\n"));
    for name in super::function_names() {
        assert!(GUIDE.contains(&format!("`{name}`")), "docs/guide/promql.md does not name {name}");
    }
}

#[test]
fn deep_queries_fit_a_small_stack() {
    let nested = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    let deepest = [
        nested("(", ")", DEPTH_MAX),
        nested("-", "", DEPTH_MAX - 1),
        nested("1 + ", "", DEPTH_MAX),
        nested("1 ^ ", "", DEPTH_MAX),
        format!("{}vector(1){}", "max_over_time(".repeat(DEPTH_MAX - 1), "[1m:1m])".repeat(DEPTH_MAX - 1)),
        format!("{}vector(1){}", "label_join(".repeat(DEPTH_MAX - 1), ", 'a', 'b', 'c')".repeat(DEPTH_MAX - 1)),
        format!("{}vector(1)", "vector(1) + ".repeat(DEPTH_MAX - 1)),
        format!("{}vector(1){}", "histogram_quantile(0, ".repeat(DEPTH_MAX - 1), ")".repeat(DEPTH_MAX - 1)),
        nested("sum(vector(", "))", DEPTH_MAX / 2).replace("vector(sum", "(sum"),
        nested("vector(scalar(", "))", DEPTH_MAX / 2 - 1).replace("scalar(1)", "scalar(vector(1))"),
    ];
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for text in deepest {
            let expr = parse(&text).unwrap();
            instant(&Memory::default(), &expr, 0, &Limits::default()).unwrap();
            range(&Memory::default(), &expr, StepRange { start: 0, end: 10, step_ms: 1 }, &Limits::default()).unwrap();
            assert_eq!(expr.to_string(), parse(&expr.to_string()).unwrap().to_string());
        }
    });
    thread.unwrap().join().unwrap();
    for text in [nested("(", ")", 8_000), nested("-", "", 16_000), nested("1+", "", 8_000), nested("sum(", ")", 3_000)]
    {
        assert!(matches!(parse(&text), Err(super::ParseQueryError::TooDeep)), "{text:.20}");
    }
    assert!(matches!(parse(&"m".repeat((1 << 20) + 1)), Err(super::ParseQueryError::TooLong { .. })));
    assert!(parse("m[1e300]").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(([a-z_]{1,3}|[0-9.]{1,3}|1e99|rate|sum|by|offset|@|start|inf|0x|[5m]|\\[|\\]|\\(|\\)|\\{|\\}|[-+*/^%=!~<>,:'\"` #])){0,12}") {
        if let Ok(expr) = parse(&text) {
            let printed = expr.to_string();
            proptest::prop_assert_eq!(parse(&printed).map(|again| again.to_string()).ok(), Some(printed));
        }
    }
}

#[test]
fn costs_are_bounded() {
    let mut memory = Memory::default();
    memory.load(1000, "m 0+1x1000");
    let ask = |text: &str, limits: &Limits| {
        let steps = StepRange { start: 0, end: 1_000_000, step_ms: 1000 };
        range(&memory, &parse(text).unwrap(), steps, limits).unwrap_err().kind()
    };
    let few = Limits { samples_max: 1500, ..Limits::default() };
    assert_eq!(ask("m + m", &few), "execution");
    assert_eq!(ask("vector(1)[1y:1ms]", &few), "bad_data");
    assert_eq!(ask("sum_over_time(vector(1)[1y:1ms])", &Limits::default()), "execution");
    let hasty = Limits { timeout: std::time::Duration::ZERO, ..Limits::default() };
    assert_eq!(ask("m", &hasty), "timeout");
    let gone = Limits::default();
    gone.cancel.cancel();
    assert_eq!(ask("m", &gone), "canceled");
    assert_eq!(ask("m", &Limits { steps_max: 999, ..Limits::default() }), "bad_data");
}

fn run(name: &str, script: &str) {
    let mut memory = Memory::default();
    let mut failures = String::new();
    let mut lines = script.lines().enumerate().peekable();
    while let Some((i, line)) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["clear"] => memory = Memory::default(),
            ["load", step] => {
                while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
                    memory.load(milliseconds(step), line.trim());
                }
            }
            ["eval", ..] => {
                let mut want = Vec::new();
                while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
                    want.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
                }
                let got = eval(&memory, line);
                if got != want {
                    let _ = writeln!(failures, "{name}.test:{}: {line}\n  want {want:#?}\n  got  {got:#?}", i + 1);
                }
            }
            _ => panic!("{name}.test:{}: {line} is no command", i + 1),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// `eval instant at 5m QUERY` or `eval range from 0 to 5m step 1m QUERY`.
fn eval(memory: &Memory, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let limits = Limits::default();
    let query = |skip: usize| line.splitn(skip + 1, ' ').last().unwrap_or_default();
    let (expr, range_of) = match words.as_slice() {
        ["eval", "instant", "at", at, ..] => (query(4), (milliseconds(at), None)),
        ["eval", "range", "from", from, "to", to, "step", step, ..] => {
            (query(8), (milliseconds(from), Some((milliseconds(to), milliseconds(step)))))
        }
        _ => panic!("{line} is no eval"),
    };
    let expr = match parse(expr) {
        Ok(expr) => expr,
        Err(error) => return vec![format!("fail {error}")],
    };
    // What is printed parses to what prints the same.
    let printed = expr.to_string();
    assert_eq!(parse(&printed).map(|again| again.to_string()).unwrap(), printed);
    let answer = match range_of {
        (start, Some((end, step_ms))) => range(memory, &expr, StepRange { start, end, step_ms }, &limits),
        (at, None) => instant(memory, &expr, at, &limits),
    };
    match answer {
        Ok(answer) => show(answer),
        Err(error) => vec![format!("fail {error}")],
    }
}

fn show(answer: Answer) -> Vec<String> {
    let mut lines = match answer.value {
        Value::Scalar(_, value) => vec![rounded(value)],
        Value::Text(text) => vec![format!("{text:?}")],
        Value::Vector(samples) => {
            samples.iter().map(|one| format!("{} {}", one.labels, rounded(one.sample.v))).collect()
        }
        Value::Matrix(series) => series
            .iter()
            .map(|one| {
                let points = one.samples.iter().map(|s| format!("{}@{}", rounded(s.v), s.t as f64 / 1000.0));
                format!("{} {}", one.labels, points.collect::<Vec<_>>().join(" "))
            })
            .collect(),
    };
    lines.extend(answer.warnings.iter().chain(&answer.infos).map(|note| format!("note {note}")));
    lines
}

/// Nine digits: what rounding may differ in lies beyond.
fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return number(value);
    }
    let scale = 10f64.powi(8 - value.abs().log10().floor() as i32);
    number((value * scale).round() / scale)
}

fn milliseconds(text: &str) -> i64 {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    for (unit, ms) in units {
        if let Some(number) = text.strip_suffix(unit).and_then(|number| number.parse::<i64>().ok()) {
            return number * ms;
        }
    }
    text.parse::<i64>().map_or_else(|_| panic!("{text} is no duration"), |seconds| seconds * 1000)
}
