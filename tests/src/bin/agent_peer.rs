//! The agent beside node_exporter: `agent_peer AGENT SECONDS INTERVAL`, started by `tests/peers/agent`. Both run on this host at
//! once, each with what it does by default, and one agent more with node_exporter's collectors alone.

use std::path::Path;
use std::time::Duration;

use petrel_tests::agent_peer::{Contest, compare};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, seconds, interval] = &arguments[..] else { usage() };
    let number = |text: &String| text.parse().unwrap_or_else(|_| usage());
    let contest = Contest {
        agent: Path::new(agent).to_owned(),
        lasting: Duration::from_secs(number(seconds)),
        interval: Duration::from_secs(number(interval)),
    };
    print!("{}", compare(&contest));
}

fn usage() -> ! {
    eprintln!("usage: agent_peer AGENT SECONDS INTERVAL");
    std::process::exit(2);
}
