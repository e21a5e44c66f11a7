//! One class of the spool: its segment files in order, what of them is not yet acknowledged, and the next number.
//! There is always at least one segment, so the next number and the reader's state survive when all else is acknowledged.
//! A number is never given to two batches: one whose write failed is skipped, and the server counts the gap.

use crc32c::crc32c;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use petrel_models::Timestamp;

use super::disk::{Disk, DiskFile, Mode, read_all};
use super::dropped::{Dropped, Note};
use super::segment::{BatchFrame, Header, read_batch, read_header};
use super::{Batch, Frozen};
use crate::stream::protocol::Class;

/// The files of one class.
pub(super) struct Queue {
    disk: Arc<dyn Disk>,
    class: Class,
    /// Oldest first; the last is written to. Never empty.
    segments: VecDeque<Segment>,
    writer: Box<dyn DiskFile>,
    /// A write or sync of the last segment failed and could not be taken back: the next batch starts another file.
    writer_broken: bool,
    next_seq: u64,
    acknowledged: u64,
    dropped: Note,
    state: Vec<u8>,
}

struct Segment {
    name: String,
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
    records: u32,
}

/// What reading the oldest batch gave.
pub(super) enum Front {
    Empty,
    Batch(Batch),
    /// Its bytes are no longer what was written; it was taken out.
    Damaged(Dropped),
}

impl Queue {
    /// Opens the class's files, creates the first one, cuts off a torn tail. Returns also how many batches are lost because
    /// files were damaged.
    pub(super) fn open(disk: Arc<dyn Disk>, class: Class) -> io::Result<(Queue, u64)> {
        let (acknowledged, dropped) = (read_acknowledged(&*disk, class)?, Note::read(&*disk, class)?);
        let (mut segments, mut next_seq, mut state, mut lost) = (VecDeque::new(), 1, Vec::new(), 0);
        let mut last = Vec::new();
        for name in segment_names(&*disk, class)? {
            let bytes = read_all(&*disk, &name)?;
            let Some((header, header_end)) = read_header(&bytes).filter(|(header, _)| header.class == class) else {
                // Torn at birth: nothing was ever written behind an incomplete header.
                disk.remove(&name)?;
                continue;
            };
            if !segments.is_empty() {
                lost += dropped.others(next_seq.max(acknowledged + 1), header.first_seq);
            }
            // A segment ends where the next one begins: what is behind that is a batch whose write failed, which was told so.
            cut_off(&mut segments, header.first_seq);
            next_seq = header.first_seq;
            state = header.state;
            let mut segment = Segment { name, bytes: header_end as u64, pending: VecDeque::new() };
            while let Some((batch, length)) = read_batch(&bytes[segment.bytes as usize..]) {
                if batch.seq < next_seq {
                    break;
                }
                next_seq = batch.seq + 1;
                state = batch.state.to_vec();
                if batch.seq > acknowledged && !dropped.has(batch.seq) {
                    let (length, records) = (length as u32, batch.records);
                    segment.pending.push_back(Place { seq: batch.seq, offset: segment.bytes, length, records });
                }
                segment.bytes += length as u64;
            }
            last = bytes;
            last.truncate(if segment.bytes > header_end as u64 { segment.bytes as usize } else { 0 });
            segments.push_back(segment);
        }
        next_seq = next_seq.max(acknowledged + 1).max(dropped.last + 1);
        if segments.is_empty() {
            segments.push_back(create_segment(&*disk, &Header { class, first_seq: next_seq, state: state.clone() })?);
        }
        let name = segments.back().map(|segment: &Segment| segment.name.clone());
        let name = name.ok_or_else(|| io::Error::other("a class has at least one segment"))?;
        // What an earlier process wrote last may be shown and yet not be on disk: it was killed before the sync, or that failed. Sent now
        // and gone after a power failure, its number would be given again, and the server would ignore what has it then.
        if !last.is_empty() {
            write_whole(&*disk, class, &name, &last)?;
        }
        let writer = disk.open(&name, Mode::Write)?;
        let writer_broken = false;
        let mut queue = Queue { disk, class, segments, writer, writer_broken, next_seq, acknowledged, dropped, state };
        // Tried again with each acknowledgement.
        let _ = queue.unlink_empty();
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
        if let Err(error) = self.writer.write_at(&frame, offset).and_then(|()| self.writer.sync()) {
            // After a failed sync nobody knows what is on disk. What cannot be cut off is cut off by the next file, which begins with
            // the same number: the caller was told that the batch is not kept, and may offer the same again.
            self.writer_broken = self.writer.set_bytes(offset).and_then(|()| self.writer.sync()).is_err();
            if self.writer_broken {
                self.next_seq = seq;
            }
            return Err(error);
        }
        let last = self.last_mut();
        last.bytes += frame.len() as u64;
        last.pending.push_back(Place { seq, offset, length: frame.len() as u32, records });
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
        let read = self.disk.open(&segment.name, Mode::Read)?.read_at(&mut bytes, place.offset)?;
        match read_batch(&bytes[..read]) {
            Some((batch, _)) if batch.seq == place.seq => Ok(Front::Batch(Batch {
                class: self.class,
                seq: batch.seq,
                spooled_at: batch.spooled_at,
                records: batch.records,
                body: bytes::Bytes::copy_from_slice(batch.body),
            })),
            _ => {
                segment.pending.pop_front();
                Ok(Front::Damaged(Dropped::one(place.records)))
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
        let written = write_acknowledged(&*self.disk, self.class, seq);
        // Gives back the space of the last file too, once it is worth the syncs of starting another.
        if self.pending() == 0 && self.last().bytes >= segment_bytes_max / 4 {
            self.rotate()?;
        }
        let _ = self.unlink_empty();
        written
    }

    /// What is in the oldest batch.
    pub(super) fn front_records(&self) -> u32 {
        let mut waiting = self.segments.iter().filter_map(|segment| segment.pending.front());
        waiting.next().map_or(0, |place| place.records)
    }

    /// Takes out the oldest segment that may go; returns what was in it. Nothing: all that is left must stay. The segment of the
    /// oldest batch stays: the server may have that one and its answer be lost, and then it would be stored and counted as dropped.
    pub(super) fn drop_oldest_segment(&mut self) -> io::Result<Dropped> {
        // A disk that unlinks nothing makes no room, whatever goes.
        self.unlink_empty()?;
        let mut waiting = (0..self.segments.len()).filter(|at| !self.segments[*at].pending.is_empty());
        let Some(at) = waiting.nth(1) else { return Ok(Dropped::default()) };
        if at + 1 == self.segments.len() {
            self.rotate()?;
        }
        let mut dropped = Dropped::default();
        let pending = std::mem::take(&mut self.segments[at].pending);
        for place in &pending {
            dropped.add(Dropped::one(place.records));
        }
        if let (Some(first), Some(last)) = (pending.front(), pending.back()) {
            self.dropped.drop_run(first.seq, last.seq, dropped);
        }
        // Noted first: a crash in between finds a file whose batches are counted already. Where the disk takes no note, the count
        // is right until the next start.
        let _ = self.dropped.write(&*self.disk, self.class);
        let _ = self.unlink_empty();
        Ok(dropped)
    }

    /// Counts a batch for which no room could be made.
    pub(super) fn refuse(&mut self, records: u32) {
        self.dropped.newest.add(Dropped::one(records));
        let _ = self.dropped.write(&*self.disk, self.class);
    }

    /// What the budget took out, and what it kept out.
    pub(super) fn dropped(&self) -> (Dropped, Dropped) {
        (self.dropped.oldest, self.dropped.newest)
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

    #[cfg(test)]
    pub(super) fn pending_numbers(&self) -> Vec<u64> {
        self.segments.iter().flat_map(|segment| &segment.pending).map(|place| place.seq).collect()
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        self.segments.iter().map(|segment| segment.name.clone()).collect()
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("a queue is opened with a segment, and only rotate and drop change the list")
    }

    fn last_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a queue is opened with a segment, and only rotate and drop change the list")
    }

    /// Starts another segment, which carries the next number and the reader's state in its header. If that fails, the next batch tries
    /// again: a file that may or may not be there after a crash cuts off what is written to the last one.
    fn rotate(&mut self) -> io::Result<()> {
        let name = segment_name(self.class, self.next_seq);
        // The last file has the name where it holds no batch; then it is replaced.
        let is_same = self.last().name == name;
        let header = Header { class: self.class, first_seq: self.next_seq, state: self.state.clone() };
        self.writer_broken = true;
        let segment = create_segment(&*self.disk, &header)?;
        self.writer = self.disk.open(&name, Mode::Write)?;
        self.writer_broken = false;
        if is_same {
            self.segments.pop_back();
        }
        self.segments.push_back(segment);
        Ok(())
    }

    /// Unlinks segments of which no batch waits, but never the last one. One that cannot be removed now is tried again with the next
    /// call, and its bytes count until then.
    fn unlink_empty(&mut self) -> io::Result<()> {
        let (disk, mut rest, mut done) = (&self.disk, self.segments.len(), Ok(()));
        self.segments.retain(|segment| {
            rest -= 1;
            if rest == 0 || !segment.pending.is_empty() {
                return true;
            }
            match disk.remove(&segment.name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    done = Err(error);
                    true
                }
                _ => false,
            }
        });
        done
    }
}

/// Takes out what has this number or a higher one.
fn cut_off(segments: &mut VecDeque<Segment>, seq: u64) {
    for segment in segments {
        while segment.pending.back().is_some_and(|place| place.seq >= seq) {
            segment.pending.pop_back();
        }
    }
}

fn segment_name(class: Class, first_seq: u64) -> String {
    format!("{}-{first_seq:016x}.seg", class.as_str())
}

/// The class's segment files in the order of their first number, which is the order of their names.
fn segment_names(disk: &dyn Disk, class: Class) -> io::Result<Vec<String>> {
    let prefix = format!("{}-", class.as_str());
    let mut names = disk.names()?;
    names.retain(|name| name.starts_with(&prefix) && Path::new(name).extension().is_some_and(|end| end == "seg"));
    names.sort();
    Ok(names)
}

fn create_segment(disk: &dyn Disk, header: &Header) -> io::Result<Segment> {
    let name = segment_name(header.class, header.first_seq);
    let bytes = header.encode();
    write_whole(disk, header.class, &name, &bytes)?;
    Ok(Segment { name, bytes: bytes.len() as u64, pending: VecDeque::new() })
}

/// Written beside, synced, then renamed: a file of this name is whole from its birth, and one that it replaces goes at once.
fn write_whole(disk: &dyn Disk, class: Class, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{}.fresh", class.as_str());
    let file = disk.open(&fresh, Mode::Fresh)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&fresh, name)?;
    disk.sync_names()
}

fn acknowledged_name(class: Class) -> String {
    format!("{}.acknowledged", class.as_str())
}

/// Zero where the file is missing or torn: then everything kept is sent again, which is safe.
fn read_acknowledged(disk: &dyn Disk, class: Class) -> io::Result<u64> {
    let bytes = match read_all(disk, &acknowledged_name(class)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        bytes => bytes?,
    };
    let Some((number, checksum)) = bytes.split_first_chunk::<8>() else { return Ok(0) };
    Ok(if checksum == crc32c(number).to_le_bytes() { u64::from_le_bytes(*number) } else { 0 })
}

fn write_acknowledged(disk: &dyn Disk, class: Class, seq: u64) -> io::Result<()> {
    let number = seq.to_le_bytes();
    let mut bytes = number.to_vec();
    bytes.extend_from_slice(&crc32c(&number).to_le_bytes());
    disk.open(&acknowledged_name(class), Mode::Write)?.write_at(&bytes, 0)
}
