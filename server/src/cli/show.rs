//! Answers of the server as people read them: tables and sentences. Reads JSON and writes text, nothing else; a field that is
//! missing shows as `-`.

use std::fmt::Write as _;

use serde_json::Value;

use super::table::render;

/// The answer of a query: a table of series, or one table a series for a range.
pub fn query(answer: &Value) -> String {
    let data = &answer["data"];
    let point = |pair: &Value| pair[1].as_str().unwrap_or("").to_owned();
    let many = matches!(data["resultType"].as_str(), Some("vector" | "matrix"));
    let mut out = match data["resultType"].as_str() {
        _ if many && list(&data["result"]).next().is_none() => {
            "Nothing: no series matches, or none has enough samples at that time.\n".to_owned()
        }
        Some("vector") => {
            let rows =
                list(&data["result"]).map(|series| vec![series_name(&series["metric"]), point(&series["value"])]);
            render(&["series", "value"], &rows.collect::<Vec<_>>())
        }
        Some("matrix") => {
            let tables = list(&data["result"]).map(|series| {
                let rows: Vec<Vec<String>> =
                    list(&series["values"]).map(|pair| vec![clock_time(&pair[0]), point(pair)]).collect();
                format!("{}\n{}", series_name(&series["metric"]), render(&["time", "value"], &rows))
            });
            tables.collect::<Vec<_>>().join("\n")
        }
        _ => format!("{}\n", point(&data["result"])),
    };
    for note in list(&answer["warnings"]).chain(list(&answer["infos"])) {
        let _ = writeln!(out, "note: {}", text(note));
    }
    out
}

/// Alerts, in the server's order: worst first.
pub fn alerts(answer: &Value) -> String {
    let since = |alert: &Value| {
        let moment = ["resolved_at", "fired_at", "active_at"].iter().find_map(|key| alert[key].as_i64());
        moment.map_or_else(|| "-".to_owned(), time_of)
    };
    let likely = |alert: &Value| match alert["prediction"]["probability"].as_f64() {
        Some(probability) => match alert["prediction"]["lead_seconds"].as_f64() {
            Some(lead) => format!("{}, {} left", percent(probability), span(lead)),
            None => percent(probability),
        },
        None => "-".to_owned(),
    };
    let rows = list(answer).map(|alert| {
        vec![
            text(&alert["level"]),
            text(&alert["state"]),
            text(&alert["labels"]["alertname"]),
            text(&alert["labels"]["instance"]),
            since(alert),
            likely(alert),
            text(&alert["annotations"]["summary"]),
        ]
    });
    table(&["level", "state", "alert", "instance", "since", "likely", "summary"], rows, "No alerts.")
}

/// Hosts with what they do and how full they are.
pub fn hosts(answer: &Value) -> String {
    let ratio = |ratio: &Value| ratio.as_f64().map_or_else(|| "-".to_owned(), percent);
    let rows = list(answer).map(|host| {
        vec![
            text(&host["name"]),
            text(&host["verdict"]),
            text(&host["duty"]),
            ratio(&host["cpu_ratio"]),
            ratio(&host["memory_ratio"]),
            ratio(&host["filesystem_ratio_max"]),
            ratio(&host["anomaly_rate"]),
            text(&host["reason"]),
        ]
    });
    let header = ["host", "verdict", "duty", "cpu", "memory", "fullest disk", "strange", "because"];
    table(&header, rows, "No host has reported yet.")
}

/// Log lines, in the order of their times.
pub fn logs(answer: &Value) -> String {
    let level = |number: &Value| match number.as_i64().unwrap_or(0) {
        1..9 => "debug",
        9..13 => "info",
        13..17 => "warning",
        17..21 => "error",
        21.. => "fatal",
        _ => "-",
    };
    let from = |line: &Value| match line["unit"].as_str() {
        Some(unit) if !unit.is_empty() => unit.to_owned(),
        _ => text(&line["source"]),
    };
    let rows = list(answer).map(|line| {
        vec![
            line["t"].as_i64().map_or_else(|| "-".to_owned(), time_of),
            text(&line["host"]),
            level(&line["severity"]).to_owned(),
            from(line),
            text(&line["precursor"]),
            text(&line["body"]),
        ]
    });
    table(
        &["time", "host", "level", "from", "announces", "line"],
        rows,
        "No such line is kept; hosts send whole what is worth reading.",
    )
}

/// What runs out when.
pub fn outlooks(answer: &Value) -> String {
    let horizons: Vec<&str> = list(answer)
        .map(|row| list(&row["probabilities"]).filter_map(|pair| pair[0].as_str()).collect::<Vec<_>>())
        .max_by_key(Vec::len)
        .unwrap_or_default();
    let within: Vec<String> = horizons.iter().map(|horizon| format!("in {horizon}")).collect();
    let refused = list(answer).any(|row| row["refused"].is_string());
    let rows = list(answer).map(|row| {
        let left = row["seconds_to_limit"][1].as_f64().map_or_else(|| "-".to_owned(), span);
        let odds = horizons.iter().map(|horizon| {
            let found = list(&row["probabilities"]).find(|pair| pair[0] == **horizon);
            found.and_then(|pair| pair[1].as_f64()).map_or_else(|| "-".to_owned(), percent)
        });
        let mut cells = vec![text(&row["instance"]), text(&row["resource"]), text(&row["what"]), left];
        cells.extend(odds);
        if refused {
            cells.push(text(&row["refused"]));
        }
        cells
    });
    let mut header = vec!["host", "resource", "what", "left (median)"];
    header.extend(within.iter().map(String::as_str));
    if refused {
        header.push("not forecast because");
    }
    table(&header, rows, "No outlook yet: a forecast needs a few minutes of samples first.")
}

/// Predictions and what became of them, then how often what was said came true.
pub fn ledger(answer: &Value) -> String {
    let rows = list(&answer["entries"]).map(|entry| {
        let labels: Value =
            entry["labels"].as_str().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let what = match labels["mountpoint"].as_str() {
            Some(mountpoint) => format!("{} {mountpoint}", text(&entry["resource"])),
            None => text(&entry["resource"]),
        };
        let horizon = entry["horizon_ms"].as_f64().filter(|ms| *ms > 0.0);
        vec![
            moment(&entry["issued"]),
            text(&entry["instance"]),
            what,
            horizon.map_or_else(|| "-".to_owned(), |ms| span(ms / 1000.0)),
            entry["probability"].as_f64().map_or_else(|| "-".to_owned(), percent),
            entry["outcome"].as_str().unwrap_or("open").replace('_', " "),
            moment(&entry["settled_at"]),
            text(&entry["reason"]),
        ]
    });
    let header = ["issued", "host", "what", "within", "said", "outcome", "settled", "because"];
    let entries = table(&header, rows, "Nothing was predicted yet.");
    let said = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), percent);
    let calibration = list(&answer["calibration"])
        .filter(|bucket| bucket["count"].as_u64().unwrap_or(0) > 0)
        .map(|bucket| vec![said(&bucket["predicted"]), said(&bucket["realised"]), text(&bucket["count"])]);
    let calibration = table(&["said", "came true", "settled"], calibration, "None is settled yet.");
    format!("{entries}\n{calibration}")
}

/// Runs, newest first.
pub fn runs(answer: &Value) -> String {
    let mut out = table(&RUN_HEADER, list(answer).map(run_row), "No runs.");
    if let Some(run) = list(answer).find(|run| run["state"] == "waiting") {
        let id = text(&run["id"]);
        let _ =
            writeln!(out, "\nRun {id} waits: `petrel runs show {id}`, then `petrel runs approve {id}` or `deny {id}`.");
    }
    out
}

/// One run with its steps and its journal.
pub fn run(answer: &Value) -> String {
    let run = &answer["run"];
    let mut out = table(&RUN_HEADER, std::iter::once(run_row(run)), "");
    let steps = list(&run["steps"]).map(|step| {
        let action =
            if step["undoes"].is_null() { text(&step["action"]) } else { format!("undo: {}", text(&step["action"])) };
        vec![text(&step["number"]), text(&step["state"]), action, text(&step["agent"]), text(&step["detail"])]
    });
    let steps = table(&["step", "state", "action", "on", "detail"], steps, "No steps.");
    let journal = list(&answer["journal"])
        .map(|entry| vec![moment(&entry["at"]), text(&entry["step"]), text(&entry["what"]), text(&entry["detail"])]);
    let journal = table(&["time", "step", "what", "detail"], journal, "Nothing in the journal.");
    let _ = write!(out, "\n{steps}\n{journal}");
    out
}

const RUN_HEADER: [&str; 6] = ["run", "runbook", "mode", "state", "subject", "because"];

fn run_row(run: &Value) -> Vec<String> {
    let subject = text(&run["subject"]);
    let because = ["reason", "summary"].iter().find_map(|key| run[key].as_str().filter(|text| !text.is_empty()));
    vec![
        text(&run["id"]),
        text(&run["runbook"]),
        text(&run["mode"]),
        text(&run["state"]),
        subject.strip_prefix("host:").unwrap_or(&subject).to_owned(),
        because.unwrap_or("-").to_owned(),
    ]
}

/// What an evacuation would do.
pub fn plan(answer: &Value) -> String {
    if let Some(reason) = answer["refused"].as_str() {
        return format!("Refused: {reason}\n");
    }
    let moves =
        list(&answer["moves"]).map(|step| vec![text(&step["guest_name"]), text(&step["from"]), text(&step["to"])]);
    table(&["guest", "from", "to"], moves, "There is nothing to move.")
}

/// Whether everything is held.
pub fn hold(on: bool) -> String {
    let told = if on { "Held: no action starts until `petrel hold off`." } else { "Not held: runs may go on." };
    format!("{told}\n")
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>, when_empty: &str) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() { format!("{when_empty}\n") } else { render(header, &rows) }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn series_name(metric: &Value) -> String {
    let pairs =
        metric.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")));
    crate::series::Labels::new(pairs).to_string()
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

fn clock_time(seconds: &Value) -> String {
    seconds.as_f64().map_or_else(|| "-".to_owned(), |seconds| time_of((seconds * 1000.0) as i64))
}

fn moment(ms: &Value) -> String {
    ms.as_i64().map_or_else(|| "-".to_owned(), time_of)
}

fn time_of(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).map_or_else(
        || ms.to_string(),
        |time| time.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// A span in its two largest units, for people.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (large, small) = match seconds {
        0..60 => ((seconds, "s"), (0, "")),
        60..3600 => ((seconds / 60, "min"), (0, "")),
        3600..86_400 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
    };
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        rest => format!("{} {} {rest} {}", large.0, large.1, small.1),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde::Serialize;
    use serde_json::json;

    use super::*;
    use crate::remedy::journal::Line;
    use crate::remedy::run::Migration;
    use crate::remedy::runbook::Mode;
    use crate::remedy::view::{EvacuationPlan, RunView};

    /// What the server's own types say must be what the tables look for.
    fn check(show: fn(&Value) -> String, answer: impl Serialize, want: &Expect) {
        let lines: Vec<String> =
            show(&serde_json::to_value(answer).unwrap()).lines().map(|line| line.trim_end().to_owned()).collect();
        want.assert_eq(&lines.join("\n"));
    }

    fn a_run(state: &'static str, reason: &str) -> RunView {
        RunView {
            id: 7,
            runbook: "empty".to_owned(),
            subject: "host:h1".to_owned(),
            mode: Mode::Approve,
            state,
            reason: reason.to_owned(),
            expires_at: None,
            alertname: String::new(),
            fingerprint: String::new(),
            summary: "h1 will fail".to_owned(),
            evacuates: None,
            created_at: 0,
            changed_at: 0,
            steps: Vec::new(),
        }
    }

    #[test]
    fn runs_are_listed_and_say_how_they_are_answered() {
        check(
            runs,
            [a_run("waiting", ""), a_run("stopped", "step 0 failed")],
            &expect![[r"
                RUN  RUNBOOK  MODE     STATE    SUBJECT  BECAUSE
                7    empty    approve  waiting  h1       h1 will fail
                7    empty    approve  stopped  h1       step 0 failed

                Run 7 waits: `petrel runs show 7`, then `petrel runs approve 7` or `deny 7`."]],
        );
        assert_eq!(runs(&json!([])), "No runs.\n");
    }

    #[test]
    fn a_run_is_shown_with_its_journal() {
        let line = Line { step: Some(0), at: 0, what: "failed".to_owned(), detail: "no room".to_owned() };
        let shown = run(&json!({ "run": a_run("stopped", "step 0 failed"), "journal": [line] }));
        assert!(shown.contains("step 0 failed") && shown.contains("0     failed  no room"), "{shown}");
    }

    #[test]
    fn a_plan_names_its_guests_or_says_why_not() {
        let moves = Migration {
            from: "h1".to_owned(),
            to: "h2".to_owned(),
            guest_uuid: "u".to_owned(),
            guest_name: "vm1".to_owned(),
        };
        let made = EvacuationPlan { host: "h1".to_owned(), moves: vec![moves], refused: None };
        check(
            plan,
            made,
            &expect![[r"
                GUEST  FROM  TO
                vm1    h1    h2"]],
        );
        let refused = EvacuationPlan { host: "h1".to_owned(), moves: Vec::new(), refused: Some("no room".to_owned()) };
        check(plan, refused, &expect!["Refused: no room"]);
    }

    #[test]
    fn an_answer_without_fields_is_shown_with_dashes() {
        assert!(alerts(&json!([{}])).lines().nth(1).is_some_and(|row| row.starts_with('-')));
    }

    #[test]
    fn spans_are_told_in_their_largest_units() {
        let told: Vec<String> = [59.0, 90.0, 3600.0, 5400.0, 90_000.0].into_iter().map(span).collect();
        assert_eq!(told, ["59 s", "1 min", "1 h", "1 h 30 min", "1 d 1 h"]);
    }
}
