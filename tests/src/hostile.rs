//! What outsiders, other programs and damaged disks can send into the decoders of server and agent, and what must hold for any of it: an answer or an
//! error, never a panic. `fuzz/` drives these by coverage, the test `mutations` by seeded changes of a corpus.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use petrel_agent::collect;
use petrel_agent::collect::exposition::{self, Format};
use petrel_agent::heartbeat::codec::Beat;
use petrel_agent::heartbeat::storage::Header;
use petrel_server::ingest::labels::LabelLimits;
use petrel_server::ingest::{body, otlp, otlp_logs, remote_write, symbols};
use petrel_server::query::source::{MetricMetadata, SelectError, Selected, Source, TimeRange};
use petrel_server::query::{self, Limits, StepRange};
use petrel_server::series::{Labels, Matcher, Sample};
use petrel_server::store::loglines::LogLine;
use petrel_server::store::{Batch, Store, StoreOptions, hostile};

use crate::crash::scratch;
use crate::dice::Dice;

/// Largest body after decompression in these drives.
const BODY_BYTES_MAX: usize = 1 << 22;
/// Most samples of one scraped body in these drives.
const EXPOSED_SAMPLES_MAX: usize = 100;
/// The clock of whatever asks for one.
const NOW: i64 = 1_790_000_000_000;

/// One way in.
pub struct Door {
    /// Its name: that of the fuzz target.
    pub name: &'static str,
    /// What is done with any bytes.
    pub knock: fn(&[u8]),
    /// Bytes to begin with: good ones.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const DOORS: [Door; 11] = [
    Door { name: "remote_write", knock: knock_remote_write, corpus: remote_writes },
    Door { name: "otlp", knock: knock_otlp, corpus: otlps },
    Door { name: "bodies", knock: knock_bodies, corpus: bodies },
    Door { name: "promql", knock: knock_promql, corpus: queries },
    Door { name: "chunk", knock: knock_chunk, corpus: chunks },
    Door { name: "record", knock: knock_record, corpus: records },
    Door { name: "exposition", knock: knock_exposition, corpus: expositions },
    Door { name: "programs", knock: knock_programs, corpus: outputs },
    Door { name: "virsh", knock: knock_virsh, corpus: virsh_outputs },
    Door { name: "log_lines", knock: knock_log_lines, corpus: log_lines },
    Door { name: "agent_blocks", knock: knock_agent_blocks, corpus: agent_blocks },
];

/// A store that knows some of the series, because those take another way.
fn store_with_series() -> &'static Arc<Store> {
    static STORE: OnceLock<(tempfile::TempDir, Arc<Store>)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let dir = scratch();
        let store = Store::open(dir.path(), StoreOptions::default(), &[], NOW).expect("a store can be made");
        let labels = Labels::new([("__name__", "up"), ("instance", "h1"), ("job", "node")]);
        let batch = Batch { series: vec![(labels, vec![Sample { t: NOW, v: 1.0 }])], ..Batch::default() };
        store.append_blocking(batch, NOW).expect("a store takes samples");
        (dir, store)
    });
    store
}

/// A remote write message as it is after decompression.
pub fn knock_remote_write(bytes: &[u8]) {
    let _ = remote_write::decode(bytes, &store_with_series().known(), LabelLimits::default());
    let _ = symbols::decode(bytes, &store_with_series().known(), LabelLimits::default());
}

/// OTLP metrics and logs after decompression.
pub fn knock_otlp(bytes: &[u8]) {
    let (store, seen) = (store_with_series(), otlp::Seen::default());
    let streams = Arc::new(otlp::Streams::default());
    // Again: what was learned takes another way, and deltas meet a stream.
    for _ in 0..3 {
        let changes = Some(otlp::Changes::new(&streams, NOW));
        if let Ok(decoded) = otlp::decode(bytes, &store.known(), &seen, LabelLimits::default(), changes) {
            seen.learn(decoded.learned);
            decoded.changes.into_iter().for_each(otlp::Changes::commit);
        }
    }
    if let Ok((lines, _)) = otlp_logs::decode(bytes, NOW) {
        let _: Vec<LogLine> = lines;
    }
}

/// Bodies in their compressions.
pub fn knock_bodies(bytes: &[u8]) {
    for encoding in ["gzip", "zstd"] {
        if let Ok(out) = body::decompress(encoding, bytes, BODY_BYTES_MAX) {
            assert!(out.len() <= BODY_BYTES_MAX);
        }
    }
    if let Ok(out) = body::decompress_snappy("snappy", bytes, BODY_BYTES_MAX, &mut Vec::new()) {
        assert!(out.len() <= BODY_BYTES_MAX);
    }
}

/// A query: parsed, printed and parsed again, evaluated at one time and over a range.
pub fn knock_promql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(expr) = query::parse(text) else { return };
    if let Ok(printed) = query::format(text) {
        let again = query::format(&printed);
        assert_eq!(again.as_deref().ok(), Some(&printed[..]), "what is printed of {text:?} reads as itself");
    }
    let limits = Limits {
        samples_max: 20_000,
        timeout: std::time::Duration::from_millis(500),
        steps_max: 20,
        ..Limits::default()
    };
    let source = Few;
    let _ = query::instant(&source, &expr, 600_000, &limits);
    let _ = query::range(&source, &expr, StepRange { start: 0, end: 600_000, step_ms: 60_000 }, &limits);
}

/// A sealed chunk.
pub fn knock_chunk(bytes: &[u8]) {
    let _ = hostile::chunk(bytes);
}

/// A record of a journal.
pub fn knock_record(bytes: &[u8]) {
    let _ = hostile::record(bytes);
}

/// What a scraped target shows: taken within bounds, or refused with its line.
pub fn knock_exposition(bytes: &[u8]) {
    for format in [Format::Prometheus, Format::OpenMetrics] {
        if let Ok((families, _)) = exposition::families(bytes, format, EXPOSED_SAMPLES_MAX) {
            let samples: usize = families.iter().map(|family| family.points.len()).sum();
            assert!(samples <= EXPOSED_SAMPLES_MAX);
        }
    }
}

/// What the programs of a host's cluster and hardware print. The first byte says which.
pub fn knock_programs(bytes: &[u8]) {
    let Some((first, text)) = bytes.split_first() else { return };
    let programs = collect::hostile::programs();
    let place = usize::from(*first) % programs.clone().count();
    programs.clone().nth(place).inspect(|(_, read)| read(&String::from_utf8_lossy(text)));
}

/// What virsh prints of guests.
pub fn knock_virsh(bytes: &[u8]) {
    collect::hostile::virsh(&String::from_utf8_lossy(bytes));
}

/// Lines of files, the journal's export format, the kernel's records.
pub fn knock_log_lines(bytes: &[u8]) {
    petrel_agent::logs::hostile(bytes);
}

/// What stands on shared storage and in the spool, and datagrams.
pub fn knock_agent_blocks(bytes: &[u8]) {
    petrel_agent::heartbeat::storage::hostile(bytes);
    petrel_agent::spool::hostile(bytes);
    let _ = Beat::decode(bytes, |_| Some(vec![7; 32]));
}

/// A few series for queries to find.
struct Few;

impl Source for Few {
    fn select(&self, matchers: &[Matcher], range: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
        let value = |series: i64, n: i64| match (series, n) {
            (3, 4) => f64::NAN,
            (3, 5) => f64::INFINITY,
            (4, 7) => Sample::stale(0).v,
            (series, n) => ((n * 37 + series * 11) % 50) as f64,
        };
        let of = |series: i64, labels: Labels| {
            let all = (0..20).map(|n| Sample { t: n * 45_000, v: value(series, n) });
            Selected { labels, samples: all.filter(|sample| (range.from..=range.to).contains(&sample.t)).collect() }
        };
        let all = (0..).zip(self.series(&[], range)?).map(|(n, labels)| of(n, labels));
        let found = all.filter(|one| !one.samples.is_empty() && matchers.iter().all(|m| m.matches(&one.labels)));
        Ok(found.collect())
    }

    fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
        let bucket = |le: &str| Labels::new([("__name__", "h_bucket"), ("le", le), ("job", "a")]);
        Ok(vec![
            Labels::new([("__name__", "a"), ("job", "a"), ("instance", "x")]),
            Labels::new([("__name__", "a"), ("job", "b"), ("instance", "y")]),
            Labels::new([("__name__", "b"), ("job", "a")]),
            bucket("0.1"),
            bucket("1"),
            bucket("+Inf"),
        ])
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

fn remote_writes() -> Vec<Vec<u8>> {
    let samples: Vec<(i64, f64)> = (0..5).map(|n| (NOW + n * 1000, n as f64)).collect();
    let pairs: [(&str, &str); 3] = [("__name__", "up"), ("instance", "h1"), ("job", "node")];
    let packed = [
        crate::remote_write::request(&[(&pairs, &samples)]),
        crate::remote_write::request(&[(&pairs, &samples[..1]), (&pairs[..1], &samples)]),
        crate::remote_write::request_with_bad_label(&pairs, NOW),
    ];
    let unpack = |body: &Vec<u8>| snap::raw::Decoder::new().decompress_vec(body).expect("own bytes decompress");
    packed.iter().map(unpack).collect()
}

/// Protobuf fields by number, for messages that are made by hand: `(number, bytes)`.
fn fields(parts: &[(u8, &[u8])]) -> Vec<u8> {
    parts.iter().flat_map(|(number, bytes)| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()).collect()
}

fn otlps() -> Vec<Vec<u8>> {
    let time: Vec<u8> = [&[3 << 3 | 1][..], &1_790_000_000_000_000_000u64.to_le_bytes()].concat();
    let value: Vec<u8> = [&[4 << 3 | 1][..], &1.5f64.to_le_bytes()].concat();
    let attribute = fields(&[(1, b"host"), (2, &fields(&[(1, b"h1")]))]);
    let point = [time.clone(), value, fields(&[(7, &attribute)])].concat();
    let sum_tail = [2 << 3, 2, 3 << 3, 1];
    let gauge = fields(&[(1, b"node.load"), (3, b"By"), (5, &fields(&[(1, &point)]))]);
    let sum = fields(&[(1, b"requests"), (7, &[fields(&[(1, &point)]), sum_tail.to_vec()].concat())]);
    let log = [&[1 << 3 | 1][..], &time[1..], &fields(&[(5, &fields(&[(1, b"disk failed")]))])].concat();
    let resource = fields(&[(1, &fields(&[(1, b"service.name"), (2, &fields(&[(1, b"node")]))]))]);
    let message = |inner: &[u8]| fields(&[(1, &fields(&[(1, &resource), (2, &fields(&[(2, inner)]))]))]);
    vec![message(&gauge), message(&sum), message(&log)]
}

fn bodies() -> Vec<Vec<u8>> {
    use std::io::Write as _;
    let text = b"petrel ".repeat(200);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).expect("memory can be written");
    vec![
        gzip.finish().expect("memory can be written"),
        zstd::stream::encode_all(&text[..], 1).expect("memory can be written"),
        snap::raw::Encoder::new().compress_vec(&text).expect("it compresses"),
    ]
}

fn expositions() -> Vec<Vec<u8>> {
    let texts = [
        "# HELP a_total Help with \\\\ and \\n.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\"}\"} 5 1700000000000\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 2 # {id=\"7\"} 0.5 1.5\nh_bucket{le=\"+Inf\"} 3\nh_sum NaN\nh_count 3\n# EOF\n",
        "{\"a.b\",\"c d\"=\"e\"} -Inf\n# TYPE s summary\ns{quantile=\"0.5\"} 1e9\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Recorded outputs; README files in their folders say of what.
fn outputs() -> Vec<Vec<u8>> {
    let texts = [
        ("corosync", include_str!("../../agent/testdata/corosync/quorumtool.txt")),
        ("corosync", include_str!("../../agent/testdata/corosync/cfgtool.txt")),
        ("corosync_stats", include_str!("../../agent/testdata/corosync/cmapctl-stats.txt")),
        ("dlm", include_str!("../../agent/testdata/dlm/status.txt")),
        ("dlm", include_str!("../../agent/testdata/dlm/ls.txt")),
        ("drbd", include_str!("../../agent/testdata/drbd/proc-syncing.txt")),
        ("drbd", include_str!("../../agent/testdata/drbd/status-9.json")),
        ("gfs2", include_str!("../../agent/testdata/gfs2/sbstats.txt")),
        ("ipmi", include_str!("../../agent/testdata/ipmi/sdr-elist.txt")),
        ("ipmi", include_str!("../../agent/testdata/ipmi/sel-info.txt")),
        ("multipath", include_str!("../../agent/testdata/multipath/maps.json")),
        ("pacemaker", include_str!("../../agent/testdata/pacemaker/troubled.xml")),
        ("sanlock", include_str!("../../agent/testdata/sanlock/status.txt")),
        ("sanlock", include_str!("../../agent/testdata/sanlock/host-status.txt")),
        ("sbd", include_str!("../../agent/testdata/sbd/dump.txt")),
        ("smart", include_str!("../../agent/testdata/smart/ata-failing.json")),
        ("smart", include_str!("../../agent/testdata/smart/scsi.json")),
        ("haproxy", include_str!("../../agent/testdata/haproxy-2.6-stat.csv")),
    ];
    let place = |name| collect::hostile::programs().position(|(one, _)| one == name).expect("the program has a reader");
    texts.iter().map(|(name, text)| [&[place(*name) as u8], text.as_bytes()].concat()).collect()
}

fn virsh_outputs() -> Vec<Vec<u8>> {
    let texts = [
        include_str!("../../agent/testdata/virsh-domstats.txt"),
        include_str!("../../agent/testdata/virsh-dumpxml.xml"),
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn log_lines() -> Vec<Vec<u8>> {
    let texts = [
        "Nov 23 03:00:00 h1 kernel: mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: be00000000800400\n",
        "2026-11-23T03:00:00.5+01:00 h1 app[7]: password=abc token: \"x\" https://u:p@h/ failed\n  at a.b(C.java:1)\n",
        "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n",
    ];
    // Two entries and the beginning of a third.
    let journal = &include_bytes!("../../agent/testdata/journal-export-252.bin")[..1_000];
    texts.iter().map(|text| text.as_bytes().to_vec()).chain([journal.to_vec()]).collect()
}

fn agent_blocks() -> Vec<Vec<u8>> {
    let header = Header { hosts_max: 8, area_id: [7; 16], made_at: NOW };
    vec![header.encode().to_vec(), b"PTRL".to_vec()]
}

fn queries() -> Vec<Vec<u8>> {
    let texts = [
        "a",
        "a{job=~\"a|b\",instance!=\"x\"}[5m]",
        "rate(a[5m] offset -1m)",
        "sum by (job) (increase(a[10m]))",
        "topk(2, a) by (job)",
        "quantile without (instance) (0.9, a)",
        "a / on (job) group_left (instance) b",
        "histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))",
        "max_over_time(rate(a[1m])[5m:30s] @ end())",
        "label_replace(a, \"x\", \"$1-y\", \"job\", \"(.*)\")",
        "count_values(\"v\", a) > bool 1",
        "a unless b or a and b",
        "-a ^ 2 ^ 3 % 4 atan2 5",
        "absent(nothing{x=\"y\"})",
        "clamp(a, -Inf, +Inf)",
        "predict_linear(a[10m], 1e9)",
        "double_exponential_smoothing(a[10m], 0.5, 0.5)",
        "time() - timestamp(a) @ 300.5",
        "{__name__=\"a\", \"x\"=\"y\"}",
        "sort_by_label_desc(a, \"job\")",
        "vector(0x1F) + scalar(a) + 1_000",
        "\"text\\n\\u00e9\" # comment",
        "day_of_month(a) == bool ignoring (job) b",
        "info(a, {job=\"a\"})",
        "changes(a[5m]) offset 1h30m",
        "quantile_over_time(1.5, a[5m])",
        "limitk(1, a)",
        "absent_over_time(a[5m])",
        "resets(a[5m:1m])",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn chunks() -> Vec<Vec<u8>> {
    let mut dice = Dice::new(1, 2);
    let mut values: Vec<Box<dyn FnMut(i64) -> f64>> = vec![
        Box::new(|_| 7.0),
        Box::new(|n| n as f64 * 12.0),
        Box::new(|n| (n % 17) as f64 / 100.0),
        Box::new(|n| if n % 30 == 29 { Sample::stale(0).v } else { (n * n) as f64 }),
        Box::new(move |_| f64::from_bits(dice.bits())),
    ];
    let mut all = Vec::new();
    for value in &mut values {
        for (count, jitter) in [(1, 0), (60, 0), (300, 7)] {
            let samples: Vec<Sample> =
                (0..count).map(|n| Sample { t: NOW + n * 15_000 + n * n % (jitter + 1), v: value(n) }).collect();
            all.push(hostile::encode_chunk(&samples).expect("the codec takes any samples"));
        }
    }
    all
}

/// Journal records, by hand as docs/formats/store.md has them: not packed, one series with labels, then without.
fn records() -> Vec<Vec<u8>> {
    let labels: &[u8] = b"\x02\x08__name__\x02up\x03job\x04node";
    let sample = [&[2][..], &1.0f64.to_le_bytes()].concat();
    let first = [&[0u8, 1, 3][..], labels, &[1], &sample].concat();
    let then = [&first[..], &[2, 1], &sample].concat();
    let packed = [&[1u8, (then.len() - 1) as u8][..], &zstd::stream::encode_all(&then[1..], 1).expect("it compresses")];
    vec![first, then.clone(), packed.concat()]
}

/// Words that mean something to a parser, beside whatever bytes there are.
const WORDS: [&str; 24] = [
    "(",
    ")",
    "{",
    "}",
    "[5m]",
    "[1h:]",
    " by ",
    "sum(",
    "rate(",
    " offset -1d",
    " @ 0",
    " @ start()",
    "\"",
    "\\",
    ",",
    "NaN",
    "-",
    "1e308",
    "=~\"",
    " or ",
    " on() group_left() ",
    "0x",
    "\u{e9}",
    "[0s]",
];

/// A seeded change of some bytes, a few places at once; `other` is what may be spliced in.
pub fn mutate(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(out.len() as u64 + 1) as usize;
        let end = (at + dice.below(9) as usize).min(out.len());
        match dice.below(9) {
            0 if at < out.len() => out[at] ^= 1 << dice.below(8),
            1 if at < out.len() => out[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5) as usize],
            2 if at < out.len() => out[at] = dice.bits() as u8,
            3 => drop(out.drain(at..end)),
            4 => out.truncate(at),
            5 => {
                let again = out[at..end].to_vec();
                out.splice(at..at, again.repeat(1 + dice.below(20) as usize));
            }
            6 => {
                let from = dice.below(other.len() as u64 + 1) as usize;
                out.splice(at..end, other[from..].iter().copied().take(40));
            }
            7 => drop(out.splice(at..end, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).count()),
            _ => drop(out.splice(at..end, WORDS[dice.below(WORDS.len() as u64) as usize].bytes()).count()),
        }
        out.truncate(1 << 16);
    }
    out
}

/// Bytes for a message: text where they are text, hexadecimal otherwise.
pub fn show(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(
        |_| {
            bytes.iter().fold(String::from("0x"), |mut text, byte| {
                write!(text, "{byte:02x}").expect("text can be written");
                text
            })
        },
        |text| format!("{text:?}"),
    )
}
