//! Series that other programs leave in files `*.prom` of one folder, in the Prometheus text format. A file counts whole or
//! not at all. Read again only when a file changed; never a pipe, and never more than a bounded number of bytes and series.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::attribute::names_in;
use crate::collect::exposition::{Format, Grouping, Line, Reader};
use crate::collect::{CollectError, Collector, Family, Kind, Pace};

/// A folder of files with series.
pub(super) struct Textfile {
    folder: Option<PathBuf>,
    seen: Vec<Stamp>,
    read: Contents,
}

/// The folder may be on storage that hangs.
const WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of all files together.
const BYTES_MAX: u64 = 8 << 20;
/// Most series of all files together, four times what node_exporter itself has on a large host.
const SERIES_MAX: usize = 10_000;

/// By what a changed file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// What all files say.
#[derive(Debug, Default)]
struct Contents {
    families: Vec<Family>,
    /// The files that counted: path, and when it was written.
    files: Vec<(String, i64)>,
    /// The first that did not.
    problem: Option<Problem>,
}

/// Why a file does not count.
#[derive(Debug, Clone)]
struct Problem {
    path: PathBuf,
    why: Why,
}

#[derive(Debug, Clone)]
enum Why {
    Unreadable(io::ErrorKind),
    Content(String),
}

impl Textfile {
    pub(super) fn new(folder: Option<PathBuf>) -> Textfile {
        Textfile { folder, seen: Vec::new(), read: Contents::default() }
    }
}

impl Collector for Textfile {
    fn name(&self) -> &'static str {
        "textfile"
    }

    fn pace(&self) -> Pace {
        match self.folder {
            Some(_) => Pace::Apart { every: Duration::ZERO, within: WITHIN },
            None => Pace::WithRound,
        }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let stamps = self.folder.as_deref().map_or_else(|| Ok(Vec::new()), stamps);
        let (stamps, mut outcome) = match stamps {
            Ok(stamps) => (stamps, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        if stamps != self.seen {
            self.read = Contents::of(&stamps);
            self.seen = stamps;
        }
        if let (Some(problem), Ok(())) = (&self.read.problem, &outcome) {
            outcome = Err(problem.told());
        }
        families.extend(self.read.families.iter().cloned());
        let help = "Unixtime mtime of textfiles successfully read.";
        let mut written = Family::new(Kind::Gauge, "node_textfile_mtime_seconds", help);
        for (file, at) in &self.read.files {
            written.push(&[("file", file)], *at as f64);
        }
        let help = "1 if there was an error opening or reading a file, 0 otherwise";
        let is_wrong = f64::from(u8::from(outcome.is_err()));
        families.extend([written, Family::new(Kind::Gauge, "node_textfile_scrape_error", help).with(is_wrong)]);
        outcome
    }
}

impl Problem {
    fn told(&self) -> CollectError {
        let path = self.path.clone();
        match &self.why {
            Why::Unreadable(kind) => CollectError::Read { path, source: io::Error::from(*kind) },
            Why::Content(what) => CollectError::Malformed { path, line: what.clone() },
        }
    }
}

/// The files of the folder that end in `.prom`.
fn stamps(folder: &Path) -> Result<Vec<Stamp>, CollectError> {
    let names = names_in(folder).map_err(|source| CollectError::Read { path: folder.to_owned(), source })?;
    let stamp = |name: String| {
        let path = folder.join(name);
        // One that is replaced just now is seen next time; a pipe would never end.
        let data = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Stamp { path, inode: data.ino(), bytes: data.size(), changed: (data.mtime(), data.mtime_nsec()) })
    };
    Ok(names
        .into_iter()
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "prom"))
        .filter_map(stamp)
        .collect())
}

impl Contents {
    fn of(stamps: &[Stamp]) -> Contents {
        let mut contents = Contents::default();
        let mut left = BYTES_MAX;
        let bodies: Vec<Result<Vec<u8>, Why>> = stamps.iter().map(|stamp| body(&stamp.path, &mut left)).collect();
        let mut grouping = Grouping::default();
        for (stamp, body) in stamps.iter().zip(&bodies) {
            let lines = body.as_ref().map_err(Why::clone).and_then(|body| lines(body, grouping.samples()));
            match lines {
                Ok(lines) => {
                    for line in lines {
                        grouping.add(line);
                    }
                    contents.files.push((stamp.path.to_string_lossy().into_owned(), stamp.changed.0));
                }
                Err(why) => {
                    contents.problem.get_or_insert(Problem { path: stamp.path.clone(), why });
                }
            }
        }
        contents.families = grouping.finish();
        for family in contents.families.iter_mut().filter(|family| family.help.is_empty()) {
            family.help = Cow::Borrowed("Metric read from a text file.");
        }
        contents
    }
}

/// A file's bytes, taken off what may still be read.
fn body(path: &Path, left: &mut u64) -> Result<Vec<u8>, Why> {
    let mut body = Vec::new();
    let unreadable = |error: io::Error| Why::Unreadable(error.kind());
    File::open(path).map_err(unreadable)?.take(*left + 1).read_to_end(&mut body).map_err(unreadable)?;
    let too_much = || Why::Content(format!("more than {BYTES_MAX} bytes in all files"));
    *left = left.checked_sub(body.len() as u64).ok_or_else(too_much)?;
    Ok(body)
}

/// All lines of a body; nothing of one that has a wrong line, a time, or too many series beside the `before` that are there.
fn lines(body: &[u8], before: usize) -> Result<Vec<Line<'_>>, Why> {
    let mut reader = Reader::new(body, Format::Prometheus);
    let (mut lines, mut series) = (Vec::new(), before);
    while let Some(line) = reader.next() {
        let line = line.map_err(|error| Why::Content(error.to_string()))?;
        let number = reader.line();
        if let Line::Sample(sample) = &line {
            series += 1;
            // What Petrel says itself may decide about hosts: nobody else may say it.
            if sample.name.starts_with("petrel_") {
                return Err(Why::Content(format!("line {number}: names that begin with petrel_ are Petrel's own")));
            }
            if sample.t.is_some() {
                let what = format!("line {number}: a time; series of files are of the time they are read at");
                return Err(Why::Content(what));
            }
        }
        if series > SERIES_MAX {
            return Err(Why::Content(format!("line {number}: more than {SERIES_MAX} series in all files")));
        }
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::collect::text;

    fn collected(textfile: &mut Textfile, folder: &Path) -> String {
        let mut families = Vec::new();
        let outcome = textfile.collect(&mut families);
        let shown = text::render(&families).replace(&*folder.to_string_lossy(), "FOLDER");
        let shown: String = shown.split_inclusive('\n').filter(|line| !line.contains("node_textfile_mtime")).collect();
        let problem = outcome.err().map(|error| format!("{error}\n").replace(&*folder.to_string_lossy(), "FOLDER"));
        shown + &problem.unwrap_or_default()
    }

    #[test]
    fn files_are_put_together_and_a_wrong_one_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.prom", "# TYPE events_total counter\n# HELP events_total Events.\nevents_total{file=\"a\"} 10\n");
        write("b.prom", "events_total{file=\"b\"} 20\nplain 1\n");
        write("c.txt", "not_read 1\n");
        std::fs::create_dir(folder.path().join("d.prom")).unwrap();
        let mut textfile = Textfile::new(Some(folder.path().to_owned()));
        expect![[r#"
            # HELP events_total Events.
            # TYPE events_total counter
            events_total{file="a"} 10
            events_total{file="b"} 20
            # HELP plain Metric read from a text file.
            # TYPE plain untyped
            plain 1
            # HELP node_textfile_scrape_error 1 if there was an error opening or reading a file, 0 otherwise
            # TYPE node_textfile_scrape_error gauge
            node_textfile_scrape_error 0
        "#]]
        .assert_eq(&collected(&mut textfile, folder.path()));
        write("b.prom", "plain 2\nplain{ 3\n");
        write("e.prom", "timed 1 1441205977284\n");
        write("f.prom", "petrel_bmc_power_on{host=\"h1\"} 0\n");
        expect![[r#"
            # HELP events_total Events.
            # TYPE events_total counter
            events_total{file="a"} 10
            # HELP node_textfile_scrape_error 1 if there was an error opening or reading a file, 0 otherwise
            # TYPE node_textfile_scrape_error gauge
            node_textfile_scrape_error 1
            FOLDER/b.prom holds a line that is not understood: "line 2: expected label=\"value\", a comma or `}` at column 8"
        "#]].assert_eq(&collected(&mut textfile, folder.path()));
        write("b.prom", "plain 22\n");
        std::fs::remove_file(folder.path().join("e.prom")).unwrap();
        let ours = collected(&mut textfile, folder.path());
        assert!(ours.ends_with("\"line 1: names that begin with petrel_ are Petrel's own\"\n"), "{ours}");
        std::fs::remove_file(folder.path().join("f.prom")).unwrap();
        let mended = collected(&mut textfile, folder.path());
        assert!(mended.contains("plain 22\n") && mended.contains("scrape_error 0\n"), "{mended}");
        std::fs::remove_dir_all(folder.path()).unwrap();
        let gone = collected(&mut textfile, folder.path());
        assert!(gone.contains("scrape_error 1\nFOLDER cannot be read"), "{gone}");
    }

    #[test]
    fn bytes_and_series_are_bounded() {
        let many: String =
            (0..=SERIES_MAX).map(|number| format!("x{{a=\"{number}\"}} 1\n")).collect::<Vec<_>>().concat();
        let Err(Why::Content(told)) = lines(many.as_bytes(), 0) else { panic!("taken") };
        assert_eq!(told, "line 10001: more than 10000 series in all files");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.prom");
        std::fs::write(&path, "# comment\n").unwrap();
        let mut left = 9;
        assert!(body(&path, &mut left).is_err());
        let mut left = 10;
        assert_eq!((body(&path, &mut left).unwrap().len(), left), (10, 0));
    }

    /// Without a folder there is nothing to go wrong, which node_exporter says too.
    #[test]
    fn no_folder_is_no_error() {
        let mut families = Vec::new();
        Textfile::new(None).collect(&mut families).unwrap();
        assert!(text::render(&families).ends_with("node_textfile_scrape_error 0\n"));
    }
}
