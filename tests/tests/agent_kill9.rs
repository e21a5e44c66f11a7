//! `kill -9` of a real agent and its server under load, again and again on the same files, and a server that is away: at the end every
//! line that was written to a log and every round of samples is stored, once, or counted as dropped by the spool's budget. Short here;
//! `tests/long agent-kill9` makes 200 cycles and an outage of a minute. A failure names the seed.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use petrel_tests::dice::{Dice, setting};
use petrel_tests::petrel::Server;
use petrel_tests::process::{Process, program, wait_for};

/// Wait between two lines of the load.
const LINE_EVERY: Duration = Duration::from_millis(10);
/// Until all is stored after the last kill: the agent's longest wait for a server that was away, and some.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
/// Series of each round, of four collectors and of the agent itself: where all have the same times, rounds are whole.
const SERIES: [&str; 5] =
    ["petrel_agent_info", "node_load1", "node_boot_time_seconds", "node_memory_MemTotal_bytes", "petrel_spool_bytes"];
/// Samples asked for at once: a second's rounds of an hour.
const PIECE_MS: i64 = 3_600_000;

/// An agent and its server in one folder, and the log that the agent follows.
struct Pair {
    dir: PathBuf,
    server: Server,
    agent: Process,
    spool_budget: &'static str,
    kills: u64,
    /// Further words in each line, which no compression makes small: 0 for short lines.
    words: usize,
}

impl Pair {
    fn start(dir: &Path, spool_budget: &'static str) -> Pair {
        File::create(dir.join("app.log")).expect("the test's folder is writable");
        let server = Server::start(dir, "");
        let agent = start_agent(dir, &server.url, spool_budget);
        Pair { dir: dir.to_owned(), server, agent, spool_budget, kills: 0, words: 0 }
    }

    /// One kill and the start of what was killed: of the server, of the agent, of the agent while the server is away, of both.
    fn kill_one(&mut self, dice: &mut Dice) {
        let mut moment = |ms_max| std::thread::sleep(Duration::from_millis(dice.below(ms_max)));
        moment(1_500);
        self.kills += 1;
        match self.kills % 4 {
            0 => {
                self.server.kill();
                moment(700);
                self.server.start_again();
            }
            1 => {
                self.agent.kill();
                self.start_agent();
            }
            2 => {
                self.server.kill();
                moment(1_500);
                self.agent.kill();
                self.start_agent();
                moment(700);
                self.server.start_again();
            }
            _ => {
                self.agent.kill();
                self.server.kill();
                self.server.start_again();
                self.start_agent();
            }
        }
    }

    fn start_agent(&mut self) {
        self.agent = start_agent(&self.dir, &self.server.url, self.spool_budget);
    }

    /// Runs `body` while lines are written to the log; returns how many were.
    fn under_load(&mut self, body: impl FnOnce(&mut Pair)) -> u64 {
        let (on, log, words) = (AtomicBool::new(true), self.dir.join("app.log"), self.words);
        std::thread::scope(|scope| {
            let lines = scope.spawn(|| write_lines(&log, words, &on));
            body(self);
            on.store(false, Ordering::SeqCst);
            lines.join().expect("the writer does not panic")
        })
    }

    /// The numbers of all lines that the server has, ascending.
    fn stored_lines(&self) -> Vec<u64> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let read = || -> rusqlite::Result<Vec<u64>> {
            let database = rusqlite::Connection::open_with_flags(self.dir.join("data/control.db"), flags)?;
            database.busy_timeout(Duration::from_secs(5))?;
            let mut lines = database.prepare("SELECT body FROM log_line WHERE source = ?1")?;
            let log = self.dir.join("app.log").display().to_string();
            let bodies = lines.query_map([log], |row| row.get::<_, String>(0))?;
            let number = |body: String| body.split(' ').nth(2).and_then(|word| word.parse().ok());
            bodies.map(|body| body.map(|body| number(body).expect("a line of this test"))).collect()
        };
        let mut numbers = read().expect("the server's database can be read");
        numbers.sort_unstable();
        numbers
    }

    /// The number of the last round that the agent knows to be committed.
    fn rounds_acknowledged(&self) -> u64 {
        let bytes = std::fs::read(self.dir.join("agent/spool/metrics.acknowledged")).expect("rounds were sent");
        u64::from_le_bytes(*bytes.first_chunk().expect("the file holds a number"))
    }

    /// The times of a series, from `since` on.
    fn times(&self, name: &str, since: i64) -> Vec<i64> {
        let end = now_ms();
        let ends = (1..).map(|piece| since + piece * PIECE_MS).take_while(|at| *at < end + PIECE_MS);
        let piece = |at: i64| {
            let selector = format!("{name}{{instance=\"k9\"}}[{PIECE_MS}ms] @ {}", at as f64 / 1000.0);
            self.server.samples(&selector).into_iter().map(|(t, _)| t)
        };
        ends.flat_map(piece).collect()
    }

    /// What the agent has counted as dropped by its spool's budget, as its last round says: batches, or records.
    fn dropped(&self, what: &str, class: &str) -> u64 {
        let selector =
            format!("petrel_spool_dropped_{what}_total{{instance=\"k9\",class=\"{class}\",reason=~\"budget|full\"}}");
        let counted = self.server.query(&format!("sum({selector})"));
        counted.first().map_or(0, |(_, counted)| *counted as u64)
    }

    /// Stops the agent, and compares what is stored with what was written and spooled. Returns the rounds.
    fn assert_all_stored_once(mut self, lines: u64, since: i64) -> u64 {
        wait_for("all lines to be stored", DRAIN_DEADLINE, || self.stored_lines().len() as u64 >= lines);
        self.agent.stop(Duration::from_secs(10));
        let stored = self.stored_lines();
        let expected: Vec<u64> = (0..lines).collect();
        let first = stored.iter().zip(&expected).find(|(stored, expected)| stored != expected);
        assert!(stored == expected, "{} of {lines} lines; the first that is wrong: {first:?}", stored.len());
        let (rounds, times) = (self.rounds_acknowledged(), self.times(SERIES[0], since));
        assert_eq!(times.len() as u64, rounds, "each round is stored once");
        for name in SERIES {
            let found = self.times(name, since);
            let missing: Vec<_> = times.iter().filter(|t| !found.contains(t)).collect();
            assert!(found == times, "{name} is not whole: {} of {}, without {missing:?}", found.len(), times.len());
        }
        rounds
    }
}

fn start_agent(dir: &Path, url: &str, spool_budget: &str) -> Process {
    let (config, state, log) = (dir.join("agent.yaml"), dir.join("agent"), dir.join("app.log"));
    // A slow machine must not make the agent leave anything out by itself.
    let text = format!(
        "servers: [{url}]\nagent: k9\nstate_dir: {}\ncollect: {{ interval: 1s }}\nheartbeat: {{ enabled: false }}\n\
         limits: {{ enabled: false }}\nspool: {{ budget: {spool_budget} }}\n\
         logs: {{ files: [{log}], whole: [{log}], from_beginning: true, kmsg: never, journal: {{ follow: never }} }}\n",
        state.display(),
        log = log.display()
    );
    std::fs::write(&config, text).expect("the test's folder is writable");
    let mut command = Command::new(program("petrel-agent"));
    Process::start(command.arg("--config").arg(&config), &dir.join("agent.log"))
}

/// Writes numbered lines until told to stop; returns how many.
fn write_lines(path: &Path, words: usize, on: &AtomicBool) -> u64 {
    let mut dice = Dice::new(7, 0);
    let mut file = File::options().append(true).open(path).expect("the log is there");
    let mut number = 0;
    while on.load(Ordering::SeqCst) {
        let more: String = (0..words).map(|_| word(&mut dice)).collect();
        writeln!(file, "ERROR request {number} failed{more}").expect("the disk has room");
        number += 1;
        std::thread::sleep(LINE_EVERY);
    }
    number
}

fn word(dice: &mut Dice) -> String {
    let letters = (0..6).map(|_| char::from(b'a' + dice.below(26) as u8));
    [' '].into_iter().chain(letters).collect()
}

fn now_ms() -> i64 {
    petrel_agent::clock::wall()()
}

#[test]
fn kill_9_of_agent_and_server_loses_and_doubles_nothing() {
    let (cycles, seed) = (setting("PETREL_AGENT_KILL9_CYCLES", 5), setting("PETREL_AGENT_KILL9_SEED", 4));
    println!("{cycles} cycles, PETREL_AGENT_KILL9_SEED={seed}");
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (since, begin) = (now_ms(), Instant::now());
    let mut pair = Pair::start(dir.path(), "64MiB");
    let mut dice = Dice::new(seed, 0);
    let lines = pair.under_load(|pair| {
        for cycle in 1..=cycles {
            pair.kill_one(&mut dice);
            if cycle % 20 == 0 {
                println!("{cycle} cycles, {:?}", begin.elapsed());
            }
        }
    });
    let rounds = pair.assert_all_stored_once(lines, since);
    println!("{cycles} kills: {lines} lines and {rounds} rounds, each stored once; {:?}", begin.elapsed());
}

#[test]
fn while_the_server_is_away_nothing_is_lost() {
    let outage = Duration::from_secs(setting("PETREL_AGENT_OUTAGE_SECONDS", 5));
    let dir = tempfile::tempdir().expect("a folder for the test");
    let since = now_ms();
    let mut pair = Pair::start(dir.path(), "64MiB");
    let mut back = Instant::now();
    let lines = pair.under_load(|pair| {
        pair.server.wait_for_query("node_load1{instance=\"k9\"}", Duration::from_secs(20));
        pair.server.kill();
        std::thread::sleep(outage);
        pair.server.start_again();
        back = Instant::now();
    });
    let rounds = pair.assert_all_stored_once(lines, since);
    println!("{outage:?} away: {lines} lines and {rounds} rounds, each stored once {:?} after", back.elapsed());
}

#[test]
fn what_the_budget_drops_is_counted_through_kill_9() {
    let (cycles, seed) = (setting("PETREL_AGENT_KILL9_DROP_CYCLES", 3), setting("PETREL_AGENT_KILL9_SEED", 4));
    println!("{cycles} cycles, PETREL_AGENT_KILL9_SEED={seed}");
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (since, begin) = (now_ms(), Instant::now());
    let mut pair = Pair::start(dir.path(), "1MiB");
    pair.words = 1_000;
    let mut dice = Dice::new(seed, 1);
    let lines = pair.under_load(|pair| {
        for cycle in 1..=cycles {
            // So long that a mebibyte of lines and samples is full, then a kill.
            pair.server.kill();
            std::thread::sleep(Duration::from_millis(3_500 + dice.below(1_500)));
            pair.agent.kill();
            pair.start_agent();
            std::thread::sleep(Duration::from_millis(dice.below(1_500)));
            pair.server.start_again();
            pair.kill_one(&mut dice);
            if cycle % 20 == 0 {
                println!("{cycle} cycles, {:?}", begin.elapsed());
            }
        }
    });
    // The count comes with the samples: a round after the last line.
    let account = |pair: &Pair| pair.stored_lines().len() as u64 + pair.dropped("records", "logs");
    wait_for("all lines to be stored or counted", DRAIN_DEADLINE, || account(&pair) >= lines);
    pair.agent.stop(Duration::from_secs(10));
    let (stored, dropped) = (pair.stored_lines(), pair.dropped("records", "logs"));
    assert!(stored.is_sorted_by(|a, b| a < b), "a line is stored twice");
    assert!(dropped > 0, "the budget was met");
    assert_eq!(stored.len() as u64 + dropped, lines, "each line is stored or counted as dropped, once");
    let (rounds, times) = (pair.rounds_acknowledged(), pair.times(SERIES[0], since).len() as u64);
    // Samples that came when the budget was full of log lines have no number.
    let dropped_rounds = pair.dropped("batches", "metrics");
    assert!(
        times + dropped_rounds >= rounds,
        "{times} rounds stored and {dropped_rounds} dropped of {rounds} and more"
    );
    println!(
        "{cycles} times: {} of {lines} lines stored, {dropped} dropped; {times} rounds stored, {dropped_rounds} dropped; {:?}",
        stored.len(),
        begin.elapsed()
    );
}
