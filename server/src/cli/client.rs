//! Commands that ask a running server over HTTP: what each asks, and which exit code the answer means. How answers look stands
//! in `show`.

use std::io::Write as _;

use anyhow::Context;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::clock;
use crate::series::Timestamp;

use super::connection::{Connection, unreached};
use super::{Command, HostsCommand, LogsArgs, Plan, QueryArgs, RunsCommand, ServerArgs, exit, show};

/// What one command asks, and how its answer is shown.
struct Question<'a> {
    server: &'a ServerArgs,
    method: Method,
    /// Segments of the path; each is encoded, so that a host's name cannot become a path of its own.
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    show: Box<dyn Fn(&Value) -> String + 'a>,
    /// Whether an answer that came well still says no.
    is_no: fn(&Value) -> bool,
}

/// Asks the server what `command` says and prints the answer. Returns the exit code.
///
/// # Errors
/// The command line is wrong, or a file that it names cannot be read.
pub async fn ask(command: Command) -> anyhow::Result<u8> {
    let question = question(&command);
    let response = match request(&question)?.send().await {
        Ok(response) => response,
        Err(error) => return Ok(unreached(&question.server.server, error)),
    };
    let status = response.status();
    let text = response.text().await.context("the server's answer broke off")?;
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    if !status.is_success() {
        return Ok(refusal(status, &value));
    }
    let text = if question.server.json { format!("{value:#}\n") } else { (question.show)(&value) };
    // Whoever reads may stop early, as `head` does; that is no mistake.
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if (question.is_no)(&value) { exit::NO } else { exit::DONE })
}

/// Says why a server refused. Returns the exit code.
///
/// # Errors
/// The answer broke off.
pub(super) async fn refused(response: Response) -> anyhow::Result<u8> {
    let status = response.status();
    let text = response.text().await.context("the server's answer broke off")?;
    Ok(refusal(status, &serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn refusal(status: StatusCode, answer: &Value) -> u8 {
    let reason = match answer["error"].as_str().or(answer.as_str()).map(str::trim) {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => format!("the server answered {status}"),
    };
    eprintln!("petrel: {reason}");
    match status {
        StatusCode::BAD_REQUEST => exit::WRONG_USE,
        StatusCode::UNAUTHORIZED => {
            eprintln!("Name a file with your token with --token-file.");
            exit::WRONG_USE
        }
        _ => exit::NO,
    }
}

fn request(question: &Question<'_>) -> anyhow::Result<reqwest::RequestBuilder> {
    let connection = Connection::new(question.server)?;
    let path = question.path.iter().map(String::as_str);
    let mut request = connection.request(question.method.clone(), path).query(&question.query);
    if let Some(body) = &question.body {
        request = request.json(body);
    }
    Ok(request)
}

fn question(command: &Command) -> Question<'_> {
    match command {
        Command::Query(args) => query(args),
        Command::Logs(args) => logs(args),
        Command::Alerts(server) => get(server, "petrel/v1/alerts", show::alerts),
        Command::Outlooks(server) => get(server, "petrel/v1/outlooks", show::outlooks),
        Command::Ledger(server) => get(server, "petrel/v1/ledger", show::ledger),
        Command::Hosts(args) => match &args.command {
            None => get(&args.server, "petrel/v1/hosts", show::hosts),
            Some(HostsCommand::Duty { host, duty }) => {
                let said = move |_: &Value| format!("{host} is {duty}.\n");
                post(&args.server, &["hosts", host, "duty"], json!({ "duty": duty, "by": operator() }), said)
            }
        },
        Command::Plan { plan: Plan::Evacuate { host, server } } => {
            let mut asked = get(server, "petrel/v1/plan/evacuate", show::plan);
            asked.path.push(host.clone());
            asked.is_no = |answer| answer["refused"].is_string();
            asked
        }
        Command::Hold(args) => match args.state.as_deref() {
            None => get(&args.server, "petrel/v1/hold", |answer| show::hold(answer["on"] == true)),
            Some(state) => {
                let on = state == "on";
                post(&args.server, &["hold"], json!({ "on": on, "by": operator() }), move |_| show::hold(on))
            }
        },
        Command::Runs(args) => {
            let act = |id: &u64, verb: &str, done: &str| {
                let said = format!("Run {id}: {done}.\n");
                let body = json!({ "by": operator(), "reason": "from the command line" });
                post(&args.server, &["runs", &id.to_string(), verb], body, move |_| said.clone())
            };
            match &args.command {
                None => get(&args.server, "petrel/v1/runs", show::runs),
                Some(RunsCommand::Show { id }) => get(&args.server, &format!("petrel/v1/runs/{id}"), show::run),
                Some(RunsCommand::Approve { id }) => act(id, "approve", "approved"),
                Some(RunsCommand::Deny { id }) => act(id, "deny", "denied; nothing was done"),
                Some(RunsCommand::Abort { id }) => act(id, "abort", "aborted; nothing more of it is delivered"),
            }
        }
        Command::Up(_)
        | Command::Serve(_)
        | Command::Check { .. }
        | Command::Eval { .. }
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Import(_)
        | Command::Verify(_)
        | Command::Repair(_) => {
            unreachable!("these are handled before")
        }
    }
}

/// Unix seconds, as the API takes a time.
fn seconds(ms: Timestamp) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

fn logs(args: &LogsArgs) -> Question<'_> {
    let mut asked = get(&args.server, "petrel/v1/logs", show::logs);
    let pairs = [
        ("host", args.host.clone()),
        ("severity", args.severity.clone()),
        ("contains", args.contains.clone()),
        ("template", args.template.clone()),
        ("from", args.from.map(seconds)),
        ("to", args.to.map(seconds)),
        ("limit", Some(args.limit.to_string())),
    ];
    asked.query = pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    asked
}

fn query(args: &QueryArgs) -> Question<'_> {
    let (path, times) = match (args.at, args.from) {
        (_, Some(from)) => {
            let to = args.to.unwrap_or_else(|| clock::wall()());
            let step = args.step.clone().unwrap_or_else(|| "1m".to_owned());
            ("api/v1/query_range", vec![("start", seconds(from)), ("end", seconds(to)), ("step", step)])
        }
        (Some(at), None) => ("api/v1/query", vec![("time", seconds(at))]),
        (None, None) => ("api/v1/query", Vec::new()),
    };
    let mut asked = get(&args.server, path, show::query);
    asked.query = times;
    asked.query.push(("query", args.promql.clone()));
    asked
}

fn get<'a>(server: &'a ServerArgs, path: &str, show: impl Fn(&Value) -> String + 'a) -> Question<'a> {
    Question {
        server,
        method: Method::GET,
        path: path.split('/').map(str::to_owned).collect(),
        query: Vec::new(),
        body: None,
        show: Box::new(show),
        is_no: |_| false,
    }
}

/// A person's word, to `/petrel/v1/…`.
fn post<'a>(server: &'a ServerArgs, path: &[&str], body: Value, show: impl Fn(&Value) -> String + 'a) -> Question<'a> {
    let path = ["petrel", "v1"].iter().chain(path).map(|segment| (*segment).to_owned()).collect();
    Question { method: Method::POST, path, body: Some(body), ..get(server, "", show) }
}

/// Whose word it is: the account at this terminal. Where the server asks for tokens, the token's user stands instead.
fn operator() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}
