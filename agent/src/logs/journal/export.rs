//! The journal's export format, read as it comes: fields as `NAME=value`, or with a length where a value holds newlines; an
//! empty line ends an entry. Memory is bounded whatever comes: a value keeps its first bytes, other fields are skipped.
//! *Source:* systemd, «Journal Export Formats».

use petrel_models::Timestamp;

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the journal stands after it.
    pub(crate) cursor: String,
    /// When it was written, by the journal's clock.
    pub(crate) at: Timestamp,
    /// 0 emergency to 7 debug.
    pub(crate) priority: Option<u8>,
    /// Who says it: `sshd`, `kernel`.
    pub(crate) identifier: String,
    /// Its process.
    pub(crate) pid: String,
    /// The unit it is of; empty for the kernel.
    pub(crate) unit: String,
    /// The message; what is not UTF-8 is replaced.
    pub(crate) message: String,
    /// Whether the message was too long, and cut.
    pub(crate) is_cut: bool,
}

impl Entry {
    /// The line as syslog would have written it: the same templates whether a host has a journal or files.
    pub(crate) fn line(&self, out: &mut String) {
        out.clear();
        out.push_str(if self.identifier.is_empty() { "unknown" } else { &self.identifier });
        if !self.pid.is_empty() {
            out.push('[');
            out.push_str(&self.pid);
            out.push(']');
        }
        out.push_str(": ");
        out.push_str(&self.message);
    }
}

/// What `journalctl --output-fields` is asked for, beside what it always gives.
pub(crate) const FIELDS: &str =
    "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_COMM,_SYSTEMD_UNIT,UNIT,_TRANSPORT";

/// Longest value of a field that is not the message: names, numbers, a cursor has about 150.
const NAME_BYTES_MAX: usize = 512;

/// Reads entries out of bytes that come in pieces of any length.
#[derive(Debug)]
pub(crate) struct ExportReader {
    message_bytes_max: usize,
    step: Step,
    /// The line or value at hand, as far as it is kept.
    kept: Vec<u8>,
    is_cut: bool,
    entry: Entry,
    command: String,
    /// A unit that the message is about, where systemd itself speaks.
    about: String,
    is_begun: bool,
}

/// What comes next.
#[derive(Debug, Clone)]
enum Step {
    /// A line: a field with its value, the name of a field with a length, or the end of an entry.
    Line,
    /// Bytes of a length, little-endian.
    Length { name: Vec<u8>, got: usize, length: u64 },
    /// Bytes of a value.
    Value { name: Vec<u8>, left: u64 },
    /// The newline after a value.
    Newline,
}

impl ExportReader {
    pub(crate) fn new(message_bytes_max: usize) -> ExportReader {
        ExportReader {
            message_bytes_max,
            step: Step::Line,
            kept: Vec::new(),
            is_cut: false,
            entry: Entry::default(),
            command: String::new(),
            about: String::new(),
            is_begun: false,
        }
    }

    /// Takes in some bytes, and hands out the entries that they complete. `take` says whether it wants more.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(Entry) -> bool) -> bool {
        while !bytes.is_empty() {
            match std::mem::replace(&mut self.step, Step::Line) {
                Step::Line => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    self.keep(&bytes[..end.unwrap_or(bytes.len())]);
                    bytes = end.map_or(&[], |end| &bytes[end + 1..]);
                    if end.is_some() && !self.line(take) {
                        return false;
                    }
                }
                Step::Length { name, mut got, mut length } => {
                    length |= u64::from(bytes[0]) << (8 * got);
                    got += 1;
                    bytes = &bytes[1..];
                    self.step = match (got, length) {
                        (8, 0) => Step::Newline,
                        (8, left) => Step::Value { name, left },
                        _ => Step::Length { name, got, length },
                    };
                }
                Step::Value { name, left } => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.keep(&bytes[..here]);
                    bytes = &bytes[here..];
                    let left = left - here as u64;
                    if left > 0 {
                        self.step = Step::Value { name, left };
                    } else {
                        let value = std::mem::take(&mut self.kept);
                        self.field(&name, &value);
                        self.step = Step::Newline;
                    }
                }
                Step::Newline => bytes = &bytes[1..],
            }
        }
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = (self.message_bytes_max + NAME_BYTES_MAX).saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_cut |= bytes.len() > room;
    }

    fn line(&mut self, take: &mut dyn FnMut(Entry) -> bool) -> bool {
        let line = std::mem::take(&mut self.kept);
        if line.is_empty() {
            return self.end(take);
        }
        match line.iter().position(|byte| *byte == b'=') {
            Some(equals) => self.field(&line[..equals], &line[equals + 1..]),
            None => self.step = Step::Length { name: line, got: 0, length: 0 },
        }
        true
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let is_cut = std::mem::take(&mut self.is_cut);
        self.is_begun = true;
        if name == b"MESSAGE" {
            let end = value.len().min(self.message_bytes_max);
            self.entry.is_cut = is_cut || end < value.len();
            self.entry.message = String::from_utf8_lossy(&value[..end]).into_owned();
            return;
        }
        let text = String::from_utf8_lossy(&value[..value.len().min(NAME_BYTES_MAX)]);
        match name {
            b"__CURSOR" => self.entry.cursor = text.into_owned(),
            b"__REALTIME_TIMESTAMP" => self.entry.at = text.parse::<i64>().unwrap_or(0) / 1000,
            b"PRIORITY" => self.entry.priority = text.parse().ok().filter(|priority| *priority < 8),
            b"SYSLOG_IDENTIFIER" => self.entry.identifier = text.into_owned(),
            b"_PID" => self.entry.pid = text.into_owned(),
            b"SYSLOG_PID" if self.entry.pid.is_empty() => self.entry.pid = text.into_owned(),
            b"_COMM" => self.command = text.into_owned(),
            b"_SYSTEMD_UNIT" => self.entry.unit = text.into_owned(),
            b"UNIT" => self.about = text.into_owned(),
            b"_TRANSPORT" if text == "kernel" => "kernel".clone_into(&mut self.entry.identifier),
            _ => {}
        }
    }

    fn end(&mut self, take: &mut dyn FnMut(Entry) -> bool) -> bool {
        let mut entry = std::mem::take(&mut self.entry);
        let (command, about) = (std::mem::take(&mut self.command), std::mem::take(&mut self.about));
        self.is_cut = false;
        if !std::mem::take(&mut self.is_begun) {
            return true;
        }
        if entry.identifier.is_empty() {
            entry.identifier = command;
        }
        if entry.unit.is_empty() || entry.unit == "init.scope" {
            entry.unit = about;
        }
        take(entry)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn entries(bytes: &[u8], piece: usize) -> Vec<Entry> {
        let mut reader = ExportReader::new(40);
        let mut seen = Vec::new();
        for bytes in bytes.chunks(piece.max(1)) {
            reader.feed(bytes, &mut |entry| {
                seen.push(entry);
                true
            });
        }
        seen
    }

    fn check(bytes: &[u8], expected: &Expect) {
        let whole = entries(bytes, usize::MAX);
        assert_eq!(whole, entries(bytes, 1), "the pieces do not matter");
        assert_eq!(whole, entries(bytes, 7));
        let mut line = String::new();
        let shown = whole.iter().map(|entry| {
            entry.line(&mut line);
            format!(
                "{} {} {:?} {:?} {line:?}{}\n",
                entry.cursor,
                entry.at,
                entry.priority,
                entry.unit,
                if entry.is_cut { " cut" } else { "" }
            )
        });
        expected.assert_eq(&shown.collect::<String>());
    }

    #[test]
    fn entries_with_text_and_binary_values() {
        let mut bytes =
            b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1795351350000123\nPRIORITY=3\nSYSLOG_IDENTIFIER=sshd\n_PID=12\n\
            _SYSTEMD_UNIT=ssh.service\nMESSAGE=Failed password\nOTHER=x\n\n\n"
                .to_vec();
        bytes.extend(b"__CURSOR=c2\nMESSAGE\n\x0a\0\0\0\0\0\0\0two\nlines\xff\n_TRANSPORT=kernel\nPRIORITY=9\n\n");
        bytes.extend(b"__CURSOR=c3\n_COMM=app\nUNIT=a.service\nEMPTY\n\0\0\0\0\0\0\0\0\nMESSAGE=");
        bytes.extend([b'm'; 50]);
        bytes.extend(b"\n\n__CURSOR=unfinished\n");
        check(
            &bytes,
            &expect![[r#"
                s=1;i=2 1795351350000 Some(3) "ssh.service" "sshd[12]: Failed password"
                c2 0 None "" "kernel: two\nlines�"
                c3 0 None "a.service" "app: mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm" cut
            "#]],
        );
    }

    /// Recorded: `journalctl --follow --output=export` of systemd 252, with the fields that are asked for here.
    #[test]
    fn what_a_real_journal_says() {
        check(
            include_bytes!("../../../testdata/journal-export-252.bin"),
            &expect![[r#"
                s=dc857f05ce194544a7bb49b9cbbb1e84;i=5d1;b=cb5ae7f0a38c40a6a213f4b4605d5715;m=9a4f21947;t=660e638e8c372;x=af26dbbd7c233106 1795391773786 Some(6) "" "systemd-journald[8613]: Runtime Journal (/run/log/journal/3d1219" cut
                s=dc857f05ce194544a7bb49b9cbbb1e84;i=5d2;b=cb5ae7f0a38c40a6a213f4b4605d5715;m=9a4fc4847;t=660e638f2f271;x=9cce276c12b13733 1795391774454 Some(3) "" "labtest[8618]: native hello"
                s=dc857f05ce194544a7bb49b9cbbb1e84;i=5d3;b=cb5ae7f0a38c40a6a213f4b4605d5715;m=9a503085f;t=660e638f9b289;x=65366dc1d4861713 1795391774896 Some(4) "" "labtest[8704]: two\nlines �"
            "#]],
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn any_bytes_in_any_pieces(bytes in proptest::collection::vec(proptest::prop_oneof![
            proptest::strategy::Just(b'\n'), proptest::strategy::Just(b'='), proptest::strategy::Just(0u8), proptest::arbitrary::any::<u8>()
        ], 0..400), piece in 1usize..50) {
            let mut reader = ExportReader::new(40);
            for bytes in bytes.chunks(piece) {
                reader.feed(bytes, &mut |_| true);
                proptest::prop_assert!(reader.kept.len() <= 40 + NAME_BYTES_MAX);
            }
            proptest::prop_assert_eq!(entries(&bytes, piece), entries(&bytes, 1));
        }
    }
}
