//! One class of the spool: its segment files in order, what of them is not yet acknowledged, and the next number.
//! There is always at least one segment, so the next number and the reader's state survive when all else is acknowledged.
//! A number is never given to two batches: one whose write failed is skipped, and the server counts the gap.

use crc32c::crc32c;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use petrel_models::Timestamp;

use super::segment::{BatchFrame, Header, read_batch, read_header};
use super::{Batch, Frozen};
use crate::stream::protocol::Class;

/// The files of one class.
pub(super) struct Queue {
    dir: PathBuf,
    class: Class,
    /// Oldest first; the last is written to. Never empty.
    segments: VecDeque<Segment>,
    writer: File,
    /// A write or sync of the last segment failed and could not be taken back: the next batch starts another file.
    writer_broken: bool,
    next_seq: u64,
    acknowledged: u64,
    state: Vec<u8>,
}

struct Segment {
    path: PathBuf,
    bytes: u64,
    /// Batches that are not acknowledged, oldest first.
    pending: VecDeque<Place>,
}

/// Where a batch stands in its segment.
#[derive(Clone, Copy)]
struct Place {
    seq: u64,
    offset: u64,
    length: u32,
}

/// What reading the oldest batch gave.
pub(super) enum Front {
    Empty,
    Batch(Batch),
    /// Its bytes are no longer what was written; it was taken out.
    Damaged,
}

impl Queue {
    /// Opens the class's files, creates the first one, cuts off a torn tail. Returns also how many batches are lost because
    /// files were damaged.
    pub(super) fn open(dir: &Path, class: Class) -> io::Result<(Queue, u64)> {
        let acknowledged = read_acknowledged(&acknowledged_path(dir, class));
        let (mut segments, mut next_seq, mut state, mut lost) = (VecDeque::new(), 1, Vec::new(), 0);
        for path in segment_paths(dir, class)? {
            let bytes = fs::read(&path)?;
            let Some((header, header_end)) = read_header(&bytes).filter(|(header, _)| header.class == class) else {
                // Torn at birth: nothing was ever written behind an incomplete header.
                fs::remove_file(&path)?;
                continue;
            };
            if !segments.is_empty() {
                lost += header.first_seq.saturating_sub(next_seq);
            }
            next_seq = header.first_seq.max(next_seq);
            state = header.state;
            let mut segment = Segment { path, bytes: header_end as u64, pending: VecDeque::new() };
            while let Some((batch, length)) = read_batch(&bytes[segment.bytes as usize..]) {
                if batch.seq < next_seq {
                    break;
                }
                next_seq = batch.seq + 1;
                state = batch.state.to_vec();
                if batch.seq > acknowledged {
                    let length = length as u32;
                    segment.pending.push_back(Place { seq: batch.seq, offset: segment.bytes, length });
                }
                segment.bytes += length as u64;
            }
            segments.push_back(segment);
        }
        next_seq = next_seq.max(acknowledged + 1);
        if segments.is_empty() {
            segments.push_back(create_segment(dir, &Header { class, first_seq: next_seq, state: state.clone() })?);
        }
        let last = segments.back().map(|segment| (segment.path.clone(), segment.bytes));
        let (path, bytes) = last.ok_or_else(|| io::Error::other("a class has at least one segment"))?;
        let writer = OpenOptions::new().read(true).write(true).open(&path)?;
        if writer.metadata()?.len() > bytes {
            writer.set_len(bytes)?;
            writer.sync_data()?;
        }
        let dir = dir.to_owned();
        let mut queue = Queue { dir, class, segments, writer, writer_broken: false, next_seq, acknowledged, state };
        queue.unlink_acknowledged();
        Ok((queue, lost))
    }

    /// Writes one batch behind the others and syncs it. If it fails, nothing stays and its number is skipped.
    pub(super) fn append(&mut self, frozen: &Frozen<'_>, now: Timestamp, segment_bytes_max: u64) -> io::Result<u64> {
        if self.writer_broken || self.last().bytes >= segment_bytes_max {
            self.rotate()?;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let Frozen { records, state, body } = *frozen;
        let frame = BatchFrame { seq, spooled_at: now, records, state, body }.encode();
        let offset = self.last().bytes;
        if let Err(error) = self.writer.write_all_at(&frame, offset).and_then(|()| self.writer.sync_data()) {
            // After a failed sync nobody knows what is on disk; what cannot be cut off is left behind in its own file.
            self.writer_broken = self.writer.set_len(offset).and_then(|()| self.writer.sync_data()).is_err();
            return Err(error);
        }
        let last = self.last_mut();
        last.bytes += frame.len() as u64;
        last.pending.push_back(Place { seq, offset, length: frame.len() as u32 });
        state.clone_into(&mut self.state);
        Ok(seq)
    }

    /// The oldest batch that is not acknowledged.
    pub(super) fn front(&mut self) -> io::Result<Front> {
        let Some(segment) = self.segments.iter_mut().find(|segment| !segment.pending.is_empty()) else {
            return Ok(Front::Empty);
        };
        let Some(place) = segment.pending.front().copied() else { return Ok(Front::Empty) };
        let mut bytes = vec![0; place.length as usize];
        match File::open(&segment.path)?.read_exact_at(&mut bytes, place.offset) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        match read_batch(&bytes) {
            Some((batch, _)) if batch.seq == place.seq => Ok(Front::Batch(Batch {
                class: self.class,
                seq: batch.seq,
                spooled_at: batch.spooled_at,
                records: batch.records,
                body: bytes::Bytes::copy_from_slice(batch.body),
            })),
            _ => {
                segment.pending.pop_front();
                Ok(Front::Damaged)
            }
        }
    }

    /// Forgets all batches up to `seq`. Does not sync: after a crash they are sent again and the server ignores them.
    pub(super) fn acknowledge(&mut self, seq: u64, segment_bytes_max: u64) -> io::Result<()> {
        if seq <= self.acknowledged {
            return Ok(());
        }
        self.acknowledged = seq;
        for segment in &mut self.segments {
            while segment.pending.front().is_some_and(|place| place.seq <= seq) {
                segment.pending.pop_front();
            }
        }
        let written = write_acknowledged(&acknowledged_path(&self.dir, self.class), seq);
        // Gives back the space of the last file too, once it is worth the syncs of starting another.
        if self.pending() == 0 && self.last().bytes >= segment_bytes_max / 4 {
            self.rotate()?;
        }
        self.unlink_acknowledged();
        written
    }

    /// Takes out the oldest segment with all its batches; returns how many were not acknowledged. Zero: nothing is left.
    pub(super) fn drop_oldest_segment(&mut self) -> io::Result<u64> {
        self.unlink_acknowledged();
        if self.pending() == 0 {
            return Ok(0);
        }
        if self.segments.len() == 1 {
            self.rotate()?;
        }
        let Some(oldest) = self.segments.pop_front() else { return Ok(0) };
        fs::remove_file(&oldest.path)?;
        Ok(oldest.pending.len() as u64)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn pending(&self) -> u64 {
        self.segments.iter().map(|segment| segment.pending.len() as u64).sum()
    }

    pub(super) fn state(&self) -> &[u8] {
        &self.state
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("a queue is opened with a segment, and only rotate and drop change the list")
    }

    fn last_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a queue is opened with a segment, and only rotate and drop change the list")
    }

    /// Starts another segment, which carries the next number and the reader's state in its header.
    fn rotate(&mut self) -> io::Result<()> {
        // A file is named by its first number, which must be another one than the last file's.
        if self.last().path == segment_path(&self.dir, self.class, self.next_seq) {
            self.next_seq += 1;
        }
        let header = Header { class: self.class, first_seq: self.next_seq, state: self.state.clone() };
        let segment = create_segment(&self.dir, &header)?;
        self.writer = OpenOptions::new().read(true).write(true).open(&segment.path)?;
        self.writer_broken = false;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Unlinks the oldest segments while all their batches are acknowledged, but never the last one.
    fn unlink_acknowledged(&mut self) {
        while self.segments.len() > 1 && self.segments[0].pending.is_empty() {
            // One that cannot be removed now is found empty and removed at the next start.
            let _ = fs::remove_file(&self.segments[0].path);
            self.segments.pop_front();
        }
    }
}

fn segment_path(dir: &Path, class: Class, first_seq: u64) -> PathBuf {
    dir.join(format!("{}-{first_seq:016x}.seg", class.as_str()))
}

/// The class's segment files in the order of their first number, which is the order of their names.
fn segment_paths(dir: &Path, class: Class) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}-", class.as_str());
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.starts_with(&prefix) && path.extension().is_some_and(|extension| extension == "seg") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn create_segment(dir: &Path, header: &Header) -> io::Result<Segment> {
    let path = segment_path(dir, header.class, header.first_seq);
    let bytes = header.encode();
    let write = || {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        File::open(dir)?.sync_all()
    };
    match write() {
        Ok(()) => Ok(Segment { path, bytes: bytes.len() as u64, pending: VecDeque::new() }),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

fn acknowledged_path(dir: &Path, class: Class) -> PathBuf {
    dir.join(format!("{}.acknowledged", class.as_str()))
}

/// Zero where the file is missing or torn: then everything kept is sent again, which is safe.
fn read_acknowledged(path: &Path) -> u64 {
    let read = || -> Option<u64> {
        let bytes = fs::read(path).ok()?;
        let (number, checksum) = bytes.split_first_chunk::<8>()?;
        (checksum == crc32c(number).to_le_bytes()).then_some(u64::from_le_bytes(*number))
    };
    read().unwrap_or(0)
}

fn write_acknowledged(path: &Path, seq: u64) -> io::Result<()> {
    let number = seq.to_le_bytes();
    let mut bytes = number.to_vec();
    bytes.extend_from_slice(&crc32c(&number).to_le_bytes());
    OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all_at(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1 << 20;

    fn append(queue: &mut Queue, body: &[u8]) -> io::Result<u64> {
        queue.append(&Frozen { records: 1, state: b"s", body }, 1, MAX)
    }

    fn front(queue: &mut Queue) -> Option<(u64, Vec<u8>)> {
        match queue.front().unwrap() {
            Front::Batch(batch) => Some((batch.seq, batch.body.to_vec())),
            Front::Empty => None,
            Front::Damaged => panic!("damaged"),
        }
    }

    /// A file that cannot be written stands for a disk that fails: the batch is refused, its number is skipped, what was
    /// kept before stays, and the next batch goes to a file of its own.
    #[test]
    fn a_failing_disk_costs_the_batch_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _) = Queue::open(dir.path(), Class::Metrics).unwrap();
        assert_eq!(append(&mut queue, b"one").unwrap(), 1);
        queue.writer = File::open(&queue.last().path).unwrap();
        assert!(append(&mut queue, b"two").is_err());
        assert_eq!(append(&mut queue, b"three").unwrap(), 3);
        assert_eq!(queue.segments.len(), 2);
        for reopened in [false, true] {
            if reopened {
                (queue, _) = Queue::open(dir.path(), Class::Metrics).unwrap();
            }
            assert_eq!(queue.pending(), 2);
            assert_eq!(front(&mut queue), Some((1, b"one".to_vec())));
        }
        queue.acknowledge(1, MAX).unwrap();
        assert_eq!(front(&mut queue), Some((3, b"three".to_vec())));
        assert_eq!(queue.segments.len(), 1, "the first file is gone");
    }
}
