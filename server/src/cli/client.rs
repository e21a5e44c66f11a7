//! Commands that ask a running server over HTTP and print what it says.

use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use serde_json::Value;

use super::table::render;
use super::{Command, HostsCommand, Plan, RunsCommand, ServerArgs, exit};

/// What one command asks, and how its answer is shown.
struct Question<'a> {
    server: &'a ServerArgs,
    method: reqwest::Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    show: fn(&Value) -> String,
}

/// Asks the server what `command` says and prints the answer. Returns the exit code.
///
/// # Errors
/// Files of the command line cannot be read.
pub async fn ask(command: Command) -> anyhow::Result<u8> {
    let question = question(&command);
    let mut client = reqwest::Client::builder().no_proxy();
    if let Some(path) = &question.server.ca_file {
        let pem = std::fs::read(path).with_context(|| format!("certificate {} cannot be read", path.display()))?;
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
    }
    let url = format!("{}{}", question.server.server.trim_end_matches('/'), question.path);
    let mut request = client.build()?.request(question.method.clone(), &url).query(&question.query);
    if let Some(path) = &question.server.token_file {
        let token =
            std::fs::read_to_string(path).with_context(|| format!("token file {} cannot be read", path.display()))?;
        request = request.bearer_auth(token.trim());
    }
    if let Some(body) = &question.body {
        request = request.json(body);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            let error = anyhow!(error.without_url());
            eprintln!(
                "petrel: the server at {} cannot be reached: {error:#}\nIs it running? Start one with `petrel up`, or name it with --server.",
                question.server.server
            );
            return Ok(exit::UNREACHED);
        }
    };
    let status = response.status();
    let text = response.text().await.context("the server's answer broke off")?;
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    if !status.is_success() {
        let reason = value["error"].as_str().or(value.as_str()).unwrap_or("no reason given");
        eprintln!("petrel: {reason}");
        return Ok(if status == reqwest::StatusCode::BAD_REQUEST { exit::WRONG_USE } else { exit::NO });
    }
    if question.server.json {
        println!("{value:#}");
    } else {
        print!("{}", (question.show)(&value));
    }
    Ok(if is_refusal(&value) { exit::NO } else { exit::DONE })
}

fn question(command: &Command) -> Question<'_> {
    let get = |server, path: &str, show| Question {
        server,
        method: reqwest::Method::GET,
        path: path.to_owned(),
        query: Vec::new(),
        body: None,
        show,
    };
    match command {
        Command::Query(args) => {
            let mut asked = get(&args.server, "/api/v1/query", show_query);
            asked.query.push(("query", args.promql.clone()));
            match (&args.at, &args.from, &args.to) {
                (_, Some(from), Some(to)) => {
                    "/api/v1/query_range".clone_into(&mut asked.path);
                    asked.query.extend([("start", from.clone()), ("end", to.clone()), ("step", args.step.clone())]);
                }
                (Some(at), ..) => asked.query.push(("time", at.clone())),
                _ => {}
            }
            asked
        }
        Command::Alerts(server) => get(server, "/petrel/v1/alerts", show_alerts),
        Command::Hosts(args) => match &args.command {
            None => get(&args.server, "/petrel/v1/hosts", show_hosts),
            Some(HostsCommand::Duty { host, duty }) => Question {
                method: reqwest::Method::POST,
                body: Some(serde_json::json!({ "duty": duty, "by": operator() })),
                ..get(&args.server, &format!("/petrel/v1/hosts/{host}/duty"), show_duty)
            },
        },
        Command::Outlooks(server) => get(server, "/petrel/v1/outlooks", show_outlooks),
        Command::Ledger(server) => get(server, "/petrel/v1/ledger", show_ledger),
        Command::Plan { plan: Plan::Evacuate { host, server } } => {
            get(server, &format!("/petrel/v1/plan/evacuate/{host}"), show_plan)
        }
        Command::Hold(args) => {
            let body = serde_json::json!({ "on": args.state == "on", "by": operator() });
            Question {
                method: reqwest::Method::POST,
                body: Some(body),
                ..get(&args.server, "/petrel/v1/hold", show_hold)
            }
        }
        Command::Runs(args) => {
            let act = |id: &u64, verb: &str| Question {
                method: reqwest::Method::POST,
                body: Some(serde_json::json!({ "by": operator(), "reason": "" })),
                ..get(&args.server, &format!("/petrel/v1/runs/{id}/{verb}"), show_run)
            };
            match &args.command {
                None => get(&args.server, "/petrel/v1/runs", show_runs),
                Some(RunsCommand::Show { id }) => get(&args.server, &format!("/petrel/v1/runs/{id}"), show_run),
                Some(RunsCommand::Approve { id }) => act(id, "approve"),
                Some(RunsCommand::Deny { id }) => act(id, "deny"),
                Some(RunsCommand::Abort { id }) => act(id, "abort"),
            }
        }
        Command::Up(_) | Command::Serve(_) | Command::Check { .. } => {
            unreachable!("these need no server and are handled before")
        }
    }
}

/// Whose word an approval is: the account at this terminal. The server adds the token's user where it knows one.
fn operator() -> String {
    rustix::process::getuid().as_raw().to_string()
}

fn show_query(answer: &Value) -> String {
    let data = &answer["data"];
    let point = |pair: &Value| pair[1].as_str().unwrap_or("").to_owned();
    let mut out = match data["resultType"].as_str() {
        Some("vector") => {
            let rows =
                list(&data["result"]).map(|series| vec![series_name(&series["metric"]), point(&series["value"])]);
            render(&["series", "value"], &rows.collect::<Vec<_>>())
        }
        Some("matrix") => list(&data["result"]).fold(String::new(), |mut out, series| {
            let rows: Vec<Vec<String>> =
                list(&series["values"]).map(|pair| vec![clock_time(&pair[0]), point(pair)]).collect();
            let _ = writeln!(out, "{}\n{}", series_name(&series["metric"]), render(&["time", "value"], &rows));
            out
        }),
        _ => format!("{}\n", point(&data["result"])),
    };
    for note in list(&answer["warnings"]).chain(list(&answer["infos"])) {
        let _ = writeln!(out, "note: {}", text(note));
    }
    out
}

fn show_alerts(answer: &Value) -> String {
    if list(answer).next().is_none() {
        return "No alerts.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = list(answer)
        .map(|alert| {
            let labels = &alert["labels"];
            vec![
                text(&alert["level"]),
                text(&alert["state"]),
                text(&labels["alertname"]),
                text(&labels["instance"]),
                text(&alert["annotations"]["summary"]),
            ]
        })
        .collect();
    render(&["level", "state", "alert", "instance", "summary"], &rows)
}

fn show_hosts(answer: &Value) -> String {
    let percent =
        |ratio: &Value| ratio.as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0));
    let rows: Vec<Vec<String>> = list(answer)
        .map(|host| {
            vec![
                text(&host["name"]),
                text(&host["verdict"]),
                text(&host["duty"]),
                percent(&host["cpu_ratio"]),
                percent(&host["memory_ratio"]),
                percent(&host["filesystem_ratio_max"]),
                text(&host["reason"]),
            ]
        })
        .collect();
    render(&["host", "verdict", "duty", "cpu", "memory", "fullest disk", "because"], &rows)
}

fn show_outlooks(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = list(answer)
        .map(|row| {
            let left = row["seconds_to_limit"][1].as_f64().map_or_else(|| "-".to_owned(), span);
            let odds = list(&row["probabilities"])
                .filter_map(|pair| Some(format!("{} {:.2}", pair[0].as_str()?, pair[1].as_f64()?)));
            let odds = odds.collect::<Vec<_>>().join("  ");
            vec![text(&row["instance"]), text(&row["resource"]), text(&row["what"]), left, odds, text(&row["refused"])]
        })
        .collect();
    render(&["host", "resource", "what", "full in (median)", "probability within", "not forecast because"], &rows)
}

fn show_ledger(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = list(&answer["entries"])
        .map(|entry| {
            vec![
                clock_time_ms(&entry["issued"]),
                text(&entry["instance"]),
                text(&entry["labels"]),
                entry["horizon_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| span(ms / 1000.0)),
                entry["probability"].as_f64().map_or_else(|| "-".to_owned(), |p| format!("{p:.3}")),
                text(&entry["outcome"]),
                clock_time_ms(&entry["settled_at"]),
            ]
        })
        .collect();
    let calibration =
        list(&answer["calibration"]).filter(|bucket| bucket["count"].as_u64().unwrap_or(0) > 0).map(|bucket| {
            vec![
                format!("{:.2}", bucket["predicted"].as_f64().unwrap_or(f64::NAN)),
                format!("{:.2}", bucket["realised"].as_f64().unwrap_or(f64::NAN)),
                text(&bucket["count"]),
            ]
        });
    let entries = render(&["issued", "host", "what", "within", "probability", "outcome", "settled"], &rows);
    let calibration = render(&["said", "came true", "settled entries"], &calibration.collect::<Vec<_>>());
    format!("{entries}\n{calibration}")
}

fn show_runs(answer: &Value) -> String {
    if list(answer).next().is_none() {
        return "No runs.\n".to_owned();
    }
    let rows: Vec<Vec<String>> = list(answer)
        .map(|run| {
            vec![
                text(&run["id"]),
                text(&run["runbook"]),
                text(&run["mode"]),
                text(&run["state"]),
                text(&run["subject"]),
                text(&run["reason"]),
            ]
        })
        .collect();
    render(&["run", "runbook", "mode", "state", "subject", "because"], &rows)
}

fn show_run(answer: &Value) -> String {
    let mut out = show_runs(&Value::Array(vec![answer["run"].clone()]));
    let rows: Vec<Vec<String>> = list(&answer["journal"])
        .map(|entry| {
            vec![clock_time_ms(&entry["at"]), text(&entry["step"]), text(&entry["what"]), text(&entry["detail"])]
        })
        .collect();
    if !rows.is_empty() {
        let _ = write!(out, "\n{}", render(&["time", "step", "what", "detail"], &rows));
    }
    out
}

fn show_duty(answer: &Value) -> String {
    format!("{} is {}.\n", text(&answer["host"]), text(&answer["duty"]))
}

/// Whether the server answered, and its answer is no.
fn is_refusal(answer: &Value) -> bool {
    answer["refused"].is_string()
}

fn show_plan(answer: &Value) -> String {
    if let Some(reason) = answer["refused"].as_str() {
        return format!("Refused: {reason}\n");
    }
    let rows: Vec<Vec<String>> =
        list(&answer["moves"]).map(|step| vec![text(&step["guest_name"]), text(&step["to"])]).collect();
    render(&["guest", "to"], &rows)
}

fn show_hold(answer: &Value) -> String {
    let on = answer["on"].as_bool().unwrap_or(false);
    if on {
        "Held: no action starts until `petrel hold off`.\n".to_owned()
    } else {
        "Not held: runs may go on.\n".to_owned()
    }
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

fn clock_time(seconds: &Value) -> String {
    seconds.as_f64().map_or_else(|| "-".to_owned(), |seconds| time_of((seconds * 1000.0) as i64))
}

fn clock_time_ms(ms: &Value) -> String {
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
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde::Serialize;

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

    fn run() -> RunView {
        RunView {
            id: 7,
            runbook: "empty".to_owned(),
            subject: "host:h1".to_owned(),
            mode: Mode::Auto,
            state: "stopped",
            reason: "step 0 failed".to_owned(),
            expires_at: None,
            alertname: String::new(),
            fingerprint: String::new(),
            summary: String::new(),
            evacuates: None,
            created_at: 0,
            changed_at: 0,
            steps: Vec::new(),
        }
    }

    #[test]
    fn runs_are_listed_and_shown_with_their_journal() {
        check(
            show_runs,
            [run()],
            &expect![[r"
                RUN  RUNBOOK  MODE  STATE    SUBJECT  BECAUSE
                7    empty    auto  stopped  host:h1  step 0 failed"]],
        );
        let line = Line { step: Some(0), at: 0, what: "failed".to_owned(), detail: "no room".to_owned() };
        let shown = show_run(&serde_json::json!({ "run": run(), "journal": [line] }));
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
        let plan = EvacuationPlan { host: "h1".to_owned(), moves: vec![moves], refused: None };
        assert!(!is_refusal(&serde_json::to_value(&plan).unwrap()));
        check(
            show_plan,
            plan,
            &expect![[r"
                GUEST  TO
                vm1    h2"]],
        );
        let refused = EvacuationPlan { host: "h1".to_owned(), moves: Vec::new(), refused: Some("no room".to_owned()) };
        assert!(is_refusal(&serde_json::to_value(&refused).unwrap()));
        check(show_plan, refused, &expect!["Refused: no room"]);
    }
}
