//! The kernel's own messages, from `/dev/kmsg`: each record with its sequence number, so that none is read twice and those
//! that the ring lost are counted. The position is (boot, sequence). Reads only what is there: never waits.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use petrel_models::Timestamp;
use serde::{Deserialize, Serialize};

/// Where reading of the kernel's messages stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsgPosition {
    /// The boot that the sequence numbers belong to.
    pub boot_id: String,
    /// The next sequence number.
    pub next: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelLine<'a> {
    /// Syslog priority: facility times eight plus severity.
    pub(super) priority: u8,
    /// Its number since boot.
    pub(super) sequence: u64,
    /// Microseconds of the monotonic clock.
    pub(super) monotonic_us: u64,
    /// The message, its escapes undone.
    pub(super) message: String,
    /// Whatever follows: the device it is about.
    pub(super) fields: &'a str,
}

/// A record is at most this long; the kernel refuses to hand one out into less room.
const RECORD_BYTES_MAX: usize = 8192;

/// Reads one record: `6,1234,5678901,-;message\n KEY=value`. `None` for what is not one.
pub(super) fn parse(record: &str) -> Option<KernelLine<'_>> {
    let (head, rest) = record.split_once(';')?;
    let mut parts = head.split(',');
    let prefix: u16 = parts.next()?.parse().ok()?;
    let sequence = parts.next()?.parse().ok()?;
    let monotonic_us = parts.next()?.parse().ok()?;
    let (message, fields) = rest.split_once('\n').unwrap_or((rest, ""));
    Some(KernelLine { priority: (prefix & 0xff) as u8, sequence, monotonic_us, message: unescaped(message), fields })
}

/// `\x0a` and its like become the bytes they stand for; what is then not UTF-8 is replaced.
fn unescaped(message: &str) -> String {
    if !message.contains("\\x") {
        return message.to_owned();
    }
    let (bytes, mut plain) = (message.as_bytes(), Vec::with_capacity(message.len()));
    let mut position = 0;
    while position < bytes.len() {
        let digits = bytes[position..].strip_prefix(b"\\x").and_then(|rest| rest.get(..2));
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        plain.push(value.unwrap_or(bytes[position]));
        position += if value.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// When a record was written, by the clock of now: `uptime_ms` is how long the machine has run at `now`. Never ahead of now.
pub(super) fn wall(now: Timestamp, uptime_ms: i64, monotonic_us: u64) -> Timestamp {
    let since_boot = i64::try_from(monotonic_us / 1000).unwrap_or(i64::MAX);
    now.saturating_sub(uptime_ms).saturating_add(since_boot).min(now)
}

/// What reading found, beside lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KmsgReading {
    /// Lines handed out.
    pub(super) lines: usize,
    /// There is more.
    pub(super) more: bool,
}

/// The open device.
pub(super) struct Kmsg<R> {
    device: R,
    position: KmsgPosition,
    buffer: Vec<u8>,
    /// Records that the ring threw away before they were read.
    pub(super) lost: u64,
    /// Whether this stands at a known place: the first record does not tell what was lost before it.
    is_placed: bool,
}

impl Kmsg<File> {
    /// Opens the device without waiting on it. Without a position of this boot it begins at the end, or, after a restart of
    /// the machine and where `from_begin` says so, with the oldest record there is.
    pub(super) fn open(
        path: &Path,
        boot_id: &str,
        kept: Option<&KmsgPosition>,
        from_begin: bool,
    ) -> io::Result<Kmsg<File>> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let device = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let is_this_boot = kept.is_some_and(|kept| kept.boot_id == boot_id);
        let next = kept.filter(|_| is_this_boot).map_or(0, |kept| kept.next);
        let mut kmsg = Kmsg::at(device, KmsgPosition { boot_id: boot_id.to_owned(), next }, kept.is_some());
        if kept.is_none() && !from_begin {
            kmsg.pass_over()?;
        }
        Ok(kmsg)
    }
}

impl<R: Read> Kmsg<R> {
    fn at(device: R, position: KmsgPosition, is_placed: bool) -> Kmsg<R> {
        Kmsg { device, position, buffer: vec![0; RECORD_BYTES_MAX], lost: 0, is_placed }
    }

    /// Reads away what is there. Seeking to the end would not tell the number that comes next, and a restart before the
    /// next message would take all that is older for new.
    fn pass_over(&mut self) -> io::Result<()> {
        self.read(usize::MAX, &mut |_| true)?;
        self.lost = 0;
        Ok(())
    }

    pub(super) fn position(&self) -> &KmsgPosition {
        &self.position
    }

    /// Hands out the records that are there, at most `lines_max`; `take` says whether it wants more.
    pub(super) fn read(
        &mut self,
        lines_max: usize,
        take: &mut dyn FnMut(&KernelLine<'_>) -> bool,
    ) -> io::Result<KmsgReading> {
        let mut reading = KmsgReading::default();
        while reading.lines < lines_max {
            let length = match self.device.read(&mut self.buffer) {
                Ok(0) => return Ok(reading),
                Ok(length) => length,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(reading),
                    // Overwritten while we looked away; the next read gives the oldest record there is.
                    io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                },
            };
            let text = String::from_utf8_lossy(&self.buffer[..length]);
            let Some(line) = parse(text.trim_end_matches('\n')) else { continue };
            if line.sequence < self.position.next {
                continue;
            }
            if self.is_placed {
                self.lost += line.sequence - self.position.next;
            }
            self.is_placed = true;
            self.position.next = line.sequence + 1;
            reading.lines += 1;
            if !take(&line) {
                break;
            }
        }
        reading.more = true;
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// The device: one record a read, as the kernel does it.
    struct Device(VecDeque<io::Result<&'static str>>);

    impl Read for Device {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let record = self.0.pop_front().unwrap_or(Err(io::Error::from(io::ErrorKind::WouldBlock)))?;
            out[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    #[test]
    fn a_first_start_knows_where_the_end_is() {
        let old = || Device(VecDeque::from([Ok("3,7,1,-;old\n"), Ok("3,9,2,-;old\n")]));
        let nowhere = KmsgPosition { boot_id: "b".to_owned(), next: 0 };
        let mut first = Kmsg::at(old(), nowhere, false);
        first.pass_over().unwrap();
        assert_eq!((first.position().next, first.lost), (10, 0));
        let mut again = Kmsg::at(old(), first.position().clone(), true);
        let reading = again.read(100, &mut |line| panic!("{line:?} is old")).unwrap();
        assert_eq!((reading.lines, again.lost), (0, 0));
    }

    #[test]
    fn records_are_read_once_and_the_lost_are_counted() {
        let device = Device(VecDeque::from([
            Ok("6,7,1000000,-;read before\n"),
            Ok("3,8,2000000,-;Buffer I/O error on dev sda, logical block 0\n SUBSYSTEM=block\n DEVICE=b8:0\n"),
            Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            Ok("4,11,3000000,-;two\\x0alines \\xc3\\xa9 \\xzz\n"),
            Ok("garbage\n"),
            Ok("30,12,3000001,c;more\n"),
        ]));
        let position = KmsgPosition { boot_id: "b".to_owned(), next: 8 };
        let mut kmsg = Kmsg::at(device, position, true);
        let mut seen = Vec::new();
        let reading = kmsg.read(100, &mut |line| {
            seen.push(format!("{} {} {:?} {:?}", line.priority, line.sequence, line.message, line.fields));
            true
        });
        assert_eq!(reading.unwrap(), KmsgReading { lines: 3, more: false });
        assert_eq!(
            seen,
            [
                "3 8 \"Buffer I/O error on dev sda, logical block 0\" \" SUBSYSTEM=block\\n DEVICE=b8:0\"",
                "4 11 \"two\\nlines é \\\\xzz\" \"\"",
                "30 12 \"more\" \"\""
            ]
        );
        assert_eq!((kmsg.lost, kmsg.position().next), (2, 13));
    }

    #[test]
    fn a_taker_that_is_full_ends_the_reading() {
        let device = Device(VecDeque::from([Ok("6,5,1,-;a\n"), Ok("6,6,1,-;b\n")]));
        let mut kmsg = Kmsg::at(device, KmsgPosition::default(), false);
        let mut seen = 0;
        let reading = kmsg.read(100, &mut |_| {
            seen += 1;
            false
        });
        assert_eq!((reading.unwrap(), seen, kmsg.lost), (KmsgReading { lines: 1, more: true }, 1, 0));
        assert_eq!(kmsg.position().next, 6);
    }

    #[test]
    fn monotonic_time_becomes_wall_time() {
        assert_eq!(wall(1_000_000, 60_000, 59_500_000), 999_500);
        assert_eq!(wall(1_000_000, 60_000, 61_000_000), 1_000_000, "never in the future");
        assert_eq!(wall(i64::MIN, i64::MAX, u64::MAX), i64::MIN);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(record in "[0-9]{0,3},[0-9]{0,20},[0-9]{0,20},.;(\\\\x[0-9a-z]{0,2}|\\PC){0,20}(\n .*)?", other in "\\PC{0,40}") {
            parse(&record);
            parse(&other);
        }
    }
}
