//! Bodies that agents compress against their last one: found here on the way in, offered on the way out. What stands in the way of
//! that is answered 409, at which the agent sends the same batch plain; docs/formats/stream.md.

use petrel_agent::stream::dictionary::{self as coding, Dictionary};

use super::body::Sent;
use super::{Receiver, Refusal};
use crate::store::Mark;
use crate::telemetry;

impl Receiver {
    /// Finds the dictionary of a body that needs one. A class or a sender that has none is told so as of any unknown encoding.
    pub(super) fn with_dictionary(&self, sent: Sent, mark: Option<&Mark>) -> Result<Sent, Refusal> {
        if sent.encoding != coding::ENCODING {
            return Ok(sent);
        }
        let Some(mark) = mark else { return Ok(sent) };
        let outcome = |outcome| telemetry::WRITE_DICTIONARIES.with_label_values(&[outcome]).inc();
        let Some(held) = self.dictionaries.of(mark) else {
            outcome("miss");
            return Err(Refusal::Dictionary);
        };
        if coding::split(&sent.bytes).is_none_or(|(hash, _)| !held.has_hash(hash)) {
            outcome("mismatch");
            return Err(Refusal::Dictionary);
        }
        outcome("hit");
        Ok(Sent { dictionary: Some(held), ..sent })
    }

    /// An agent's body as dictionary of its next one.
    pub(super) fn dictionary_of(&self, body: &[u8], mark: Option<&Mark>) -> Option<Dictionary> {
        let mark = mark?;
        let now = (self.clock)();
        if self.store.is_memory_tight() {
            self.dictionaries.rest(now);
        }
        self.dictionaries.may_keep(mark, body.len(), now).then(|| Dictionary::new(mark.seq, body)).flatten()
    }

    /// Keeps it once its batch is committed; returns the number that the agent is told.
    pub(super) fn keep_dictionary(&self, mark: &Mark, dictionary: Option<Dictionary>) -> Option<u64> {
        let Some(dictionary) = dictionary else {
            self.dictionaries.forget(mark);
            return None;
        };
        self.dictionaries.keep(mark, dictionary, (self.clock)()).then_some(mark.seq)
    }
}
