//! The writer thread: the only one that accepts samples. It commits what waits in the queue as one group, and only then
//! changes the heads, feeds the taps and answers. Nothing is acknowledged that is not synced to disk.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, PoisonError};

use tracing::{error, info};

use super::journal::Journal;
use super::marks::HighMarks;
use super::record::RecordWriter;
use super::shared::{AppendError, Shared};
use super::{Batch, Committed, Mark, Refused, RefusedReason, Row, sqlite};
use crate::series::{Labels, Sample, Timestamp};
use crate::telemetry;

/// Samples that may be ahead of the server's clock, DESIGN section 5 «Time».
const FUTURE_MS_MAX: i64 = 600_000;
/// Size at which a group is committed although more waits: about 8 MB, where SQLite's rate of commits was best.
const GROUP_SAMPLES_MAX: usize = 400_000;
/// Size at which a journal file is ended. Small enough that one long-lived head does not hold much back.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// What the writer thread is told.
pub enum Message {
    /// Commit a batch.
    Append(Request),
    /// End the journal file that is being written, so that it can be unlinked once its samples are sealed.
    Rotate,
}

/// One batch on its way.
pub struct Request {
    /// The batch.
    pub batch: Batch,
    /// The server's clock when it came.
    pub now: Timestamp,
    /// Called once, after the commit or its failure.
    pub reply: Box<dyn FnOnce(Result<Committed, AppendError>) + Send>,
}

/// A batch after its series were found.
struct Prepared {
    committed: Committed,
    accepted: Vec<Row>,
    told: Vec<(String, crate::query::source::MetricMetadata)>,
    reply: Box<dyn FnOnce(Result<Committed, AppendError>) + Send>,
}

/// The thread's own state.
pub struct Writer {
    shared: Arc<Shared>,
    marks: HighMarks,
    journal: Option<Journal>,
    /// Whether the last group was refused: told in the log once, not for every group.
    refusing: bool,
}

impl Writer {
    /// A writer that will begin with the shared state's active journal number.
    pub fn new(shared: Arc<Shared>, marks: HighMarks) -> Writer {
        Writer { shared, marks, journal: None, refusing: false }
    }

    /// Works until all senders are gone and the queue is empty.
    pub fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            let mut group = Vec::new();
            let mut rotate = false;
            let mut samples = 0;
            let mut next = Ok(first);
            loop {
                match next {
                    Ok(Message::Append(request)) => {
                        samples += self.shared.leave_queue(&request.batch);
                        group.push(request);
                    }
                    Ok(Message::Rotate) => rotate = true,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
                if rotate || samples >= GROUP_SAMPLES_MAX {
                    break;
                }
                next = queue.try_recv();
            }
            self.commit(group);
            if rotate {
                self.rotate();
            }
        }
    }

    fn rotate(&mut self) {
        if self.journal.take().is_some() {
            self.shared.next_journal();
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Series are forgotten only while no group is between being prepared and being applied.
        let _gate = shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(refused) = shared.check_disk().and_then(|()| self.open_journal()) {
            self.tell(Some(&refused));
            for request in group {
                (request.reply)(Err(refused.clone()));
            }
            return;
        }
        let mut record = RecordWriter::default();
        let mut declared = Vec::new();
        let mut raised: HashMap<(String, String), Mark> = HashMap::new();
        let mut ready = Vec::new();
        for request in group {
            if let Some(mark) = &request.batch.mark
                && self.marks.is_full_for(mark)
            {
                (request.reply)(Err(AppendError::TooManyAgents));
                continue;
            }
            ready.push(self.prepare(request, &mut raised));
        }
        let number = shared.active_journal();
        for Row { series, sample } in ready.iter().flat_map(|prepared| &prepared.accepted) {
            let before = series.declared_in();
            let is_new = !series.is_declared_in(number);
            record.push(series.id, is_new.then_some(&series.labels), *sample);
            if is_new {
                series.declare_in(number);
                declared.push((Arc::clone(series), before));
            }
        }
        let marks: Vec<Mark> = raised.into_values().collect();
        match self.append(record, &marks) {
            Ok(position) => {
                self.tell(None);
                for mark in &marks {
                    self.marks.raise(mark);
                }
                for prepared in &ready {
                    for Row { series, sample } in &prepared.accepted {
                        series.head().insert(*sample, position);
                    }
                }
                // Before any answer: who then deletes what was acknowledged finds it sealed up to its position.
                shared.set_applied(position);
                for prepared in ready {
                    answer(&shared, prepared);
                }
            }
            Err(failed) => {
                self.tell(Some(&failed));
                for (series, before) in &declared {
                    series.declare_in(*before);
                }
                for prepared in ready {
                    (prepared.reply)(Err(failed.clone()));
                }
            }
        }
        if self.journal.as_ref().is_some_and(|journal| journal.bytes >= JOURNAL_BYTES_MAX) {
            self.rotate();
        }
    }

    /// Logs when refusing begins and ends.
    fn tell(&mut self, failed: Option<&AppendError>) {
        match failed {
            Some(failed) if !self.refusing => {
                error!(error = failed as &dyn std::error::Error, "samples are refused; senders keep what they have");
            }
            None if self.refusing => info!("samples are accepted again"),
            _ => {}
        }
        self.refusing = failed.is_some();
    }

    fn open_journal(&mut self) -> Result<(), AppendError> {
        if self.journal.is_none() {
            let number = self.shared.active_journal();
            match Journal::create(&self.shared.dir, number) {
                Ok(journal) => self.journal = Some(journal),
                Err(source) => {
                    // What was begun of the file stays out of the way: the next attempt takes the next number.
                    self.shared.next_journal();
                    return Err(self.failed(source));
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, record: RecordWriter, marks: &[Mark]) -> Result<u64, AppendError> {
        let body = if record.is_empty() {
            Vec::new()
        } else {
            record.finish().map_err(|source| AppendError::Encode { source: Arc::new(source) })?
        };
        let Some(journal) = self.journal.as_mut() else { return Err(AppendError::Closed) };
        if body.is_empty() && marks.is_empty() {
            return Ok(0);
        }
        journal.append(&body, marks).map_err(|source| {
            let failed = self.failed(source);
            // After a failed sync the kernel may have dropped pages of this log that it will not report again, so nothing
            // more is added to it. A full disk is different: SQLite undid the transaction and knows what the log has.
            if !matches!(failed, AppendError::DiskFull { .. }) {
                self.rotate();
            }
            failed
        })
    }

    fn failed(&self, source: rusqlite::Error) -> AppendError {
        let dir = self.shared.dir.clone();
        if sqlite::is_disk_full(&source) {
            AppendError::DiskFull { dir, source: Arc::new(source) }
        } else {
            AppendError::Journal { dir, source: Arc::new(source) }
        }
    }

    fn prepare(&self, request: Request, raised: &mut HashMap<(String, String), Mark>) -> Prepared {
        let Request { batch, now, reply } = request;
        let Batch { rows, mut series, metadata, mark, is_own } = batch;
        let mut prepared = Prepared { committed: Committed::default(), accepted: rows, told: metadata, reply };
        if let Some(mark) = mark {
            let key = (mark.agent.clone(), format!("{} {}", mark.epoch, mark.class.as_str()));
            if self.marks.contains(&mark) || raised.get(&key).is_some_and(|high| high.seq >= mark.seq) {
                prepared.committed.duplicate = true;
                let samples = prepared.accepted.len() + series.iter().map(|(_, samples)| samples.len()).sum::<usize>();
                telemetry::INGEST_SAMPLES.with_label_values(&["duplicate"]).inc_by(samples as u64);
                (prepared.accepted, prepared.told) = (Vec::new(), Vec::new());
                return prepared;
            }
            raised.insert(key, mark);
        }
        let Prepared { committed, accepted, .. } = &mut prepared;
        let mut refuse = |labels: &Labels, sample: Sample, reason| {
            committed.refused.push(Refused { labels: labels.clone(), sample, reason });
        };
        let allowed = self.shared.allowed(now, FUTURE_MS_MAX);
        accepted.retain(|Row { series: found, sample }| {
            if found.is_forgotten() {
                series.push((found.labels.clone(), vec![*sample]));
                return false;
            }
            let refused = allowed.check(sample.t);
            if let Some(reason) = refused {
                refuse(&found.labels, *sample, reason);
            }
            refused.is_none()
        });
        for (labels, samples) in &mut series {
            samples.retain(|sample| match allowed.check(sample.t) {
                None => true,
                Some(reason) => {
                    refuse(labels, *sample, reason);
                    false
                }
            });
        }
        // A series of which nothing is taken must not come into being.
        series.retain(|(_, samples)| !samples.is_empty());
        for ((labels, samples), found) in series.iter().zip(self.shared.resolve(&series, is_own)) {
            for sample in samples {
                match &found {
                    Err(reason) => refuse(labels, *sample, *reason),
                    Ok(found) => accepted.push(Row { series: Arc::clone(found), sample: *sample }),
                }
            }
        }
        committed.accepted = accepted.len() as u64;
        prepared
    }
}

/// Tells of a batch that is committed and visible, and answers its sender.
fn answer(shared: &Shared, prepared: Prepared) {
    shared.learn(prepared.told);
    let count = |outcome: &str, samples: u64| {
        if samples > 0 {
            telemetry::INGEST_SAMPLES.with_label_values(&[outcome]).inc_by(samples);
        }
    };
    count("accepted", prepared.committed.accepted);
    for reason in RefusedReason::ALL {
        count(
            reason.outcome(),
            prepared.committed.refused.iter().filter(|refused| refused.reason == reason).count() as u64,
        );
    }
    shared.feed_taps(prepared.accepted);
    (prepared.reply)(Ok(prepared.committed));
}
