//! What the agent makes of real log lines: masks, levels, precursors and templates of LogHub's eight systems, line by line.
//!
//! The digests were made before lines were filtered for speed; whatever makes reading faster must leave them as they are.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_agent::logs::{LogRecord, LogTails, RawJournalConfig, RawLogsConfig, Severity, Wanted};
use petrel_tests::left_out::shared;

/// System, records (a trace is one), records by level from debug to fatal, with a precursor, with a masked secret, templates,
/// and a digest of all there is to know of each record.
const EXPECTED: &str = "
Apache 2009 0/1412/0/597/0 2 6 20 bc9bb249dcc4741b
BGL 2009 0/1499/20/143/347 2 6 92 a0562daa739683ed
HDFS 2009 0/1927/80/2/0 2 6 24 d65c3363e2d39cbd
Linux 2009 0/1424/2/540/43 2 7 119 9a8dd5e06662488e
Mac 2009 0/1721/7/281/0 2 19 327 ea464292eb3cbc46
OpenSSH 2009 0/854/0/1154/1 2 6 32 a4bce635d8f43275
OpenStack 2009 0/1976/31/2/0 2 6 37 11d474021d949978
Windows 2009 0/1477/282/250/0 2 6 52 3268f209eb2c8e83
";

const SYSTEMS: [&str; 8] = ["Apache", "BGL", "HDFS", "Linux", "Mac", "OpenSSH", "OpenStack", "Windows"];

/// The samples have hardly a secret and no precursor: these lines stand behind each of them.
const ADDED: &str = "\
Oct  9 12:00:00 h app[1]: login=bob password=hunter2 --token abc https://u:p@h/x
Oct  9 12:00:00 h sudo: root : COMMAND=/usr/bin/mysql -u root -phunter2 -e x
Oct  9 12:00:00 h app[1]: Authorization: Bearer abc.def PIN: 4711 mapping: 1
Oct  9 12:00:00 h kernel: [   12.500000] Out of memory: Killed process 7 (qemu-kvm) total-vm:1kB
Oct  9 12:00:00 h kernel: Buffer I/O error on dev sda, logical block 3, async page read
Oct  9 12:00:00 h app[1]: -----BEGIN PRIVATE KEY-----
Oct  9 12:00:00 h app[1]: MIIEvQ
Oct  9 12:00:00 h app[1]: -----END PRIVATE KEY-----
Oct  9 12:00:00 h app[1]: na\u{ef}ve \u{2028} end
";

/// All lines of a file lie there from the start; the last one waits a second for a continuation.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn masks_levels_precursors_and_templates_stay_as_they_are() {
    let Some(folder) = shared("data/loghub2k", "masks_levels_precursors_and_templates_stay_as_they_are") else {
        return;
    };
    let folder = folder.as_path();
    // Side by side: each waits a second for the end of its last line.
    let shown: String = std::thread::scope(|scope| {
        let started = SYSTEMS.map(|system| scope.spawn(move || summary(system, &records(&text_of(folder, system)))));
        started.map(|thread| thread.join().unwrap()).concat()
    });
    assert_eq!(shown.trim(), EXPECTED.trim(), "\n{shown}");
}

/// The system's lines, and the added ones.
fn text_of(folder: &Path, system: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let packed = std::fs::File::open(folder.join(format!("{system}.log.gz"))).expect("the sample is there");
    flate2::read::GzDecoder::new(packed).read_to_end(&mut text).expect("it is whole");
    text.push(b'\n');
    text.extend_from_slice(ADDED.as_bytes());
    text
}

/// Follows a file with these lines to its end, all of them travelling whole.
fn records(text: &[u8]) -> Vec<LogRecord> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.log").display().to_string();
    std::fs::write(&path, text).expect("the folder is ours");
    let journal = RawJournalConfig { follow: Wanted::Never, ..RawJournalConfig::default() };
    let (files, whole, kmsg) = (vec![path.clone()], vec![path], Wanted::Never);
    let config = RawLogsConfig { files, whole, journal, kmsg, from_beginning: true, ..RawLogsConfig::default() };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let mut tails = LogTails::new(&config.check().expect("a sound config"), None, Arc::new(now));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut records = Vec::new();
    loop {
        let next = async { tokio::time::timeout(DEADLINE, tails.next()).await };
        let round = runtime.block_on(next).expect("the file is read to its end");
        records.extend(round.records);
        if round.state.files.iter().map(|file| file.offset).sum::<u64>() >= text.len() as u64 {
            return records;
        }
    }
}

fn summary(system: &str, records: &[LogRecord]) -> String {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    let mut line = String::new();
    let mut templates = std::collections::BTreeSet::new();
    for record in records {
        line.clear();
        // Not its time: some stamps have no year, so that they depend on when this runs.
        let LogRecord { severity, template_id, template, body, precursor, why, .. } = record;
        writeln!(line, "{} {template_id} {precursor} {} {template} {body}", severity.as_str(), why.as_str())
            .expect("text takes all");
        for byte in line.bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        templates.insert(template_id);
    }
    let count = |counted: &dyn Fn(&LogRecord) -> bool| records.iter().filter(|record| counted(record)).count();
    let levels = Severity::ALL.map(|level| count(&|record| record.severity == level).to_string()).join("/");
    let precursors = count(&|record| !record.precursor.is_empty());
    let masked = count(&|record| record.body.contains("***"));
    let (records, templates) = (records.len(), templates.len());
    format!("{system} {records} {levels} {precursors} {masked} {templates} {digest:016x}\n")
}
