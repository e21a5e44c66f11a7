//! DNS messages as far as a check needs them: one question out, records back (RFC 1035; AAAA: RFC 3596, SRV: RFC 2782). Ours,
//! because the kept crate is a resolver of a hundred thousand lines for these two functions. Pure; takes any bytes.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

/// Longest name in its bytes on the wire (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;
/// Most records that are read of a message; an answer that needs more is not one to check.
const RECORDS_MAX: usize = 1000;
const CLASS_IN: u16 = 1;
const HEADER_BYTES: usize = 12;
const IS_RESPONSE: u16 = 0x8000;
const IS_TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;

/// Types of records that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are the names of the DNS")]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

impl RecordType {
    const ALL: [(RecordType, u16); 9] = [
        (RecordType::A, 1),
        (RecordType::Ns, 2),
        (RecordType::Cname, 5),
        (RecordType::Soa, 6),
        (RecordType::Ptr, 12),
        (RecordType::Mx, 15),
        (RecordType::Txt, 16),
        (RecordType::Aaaa, 28),
        (RecordType::Srv, 33),
    ];

    fn number(self) -> u16 {
        RecordType::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    fn of(number: u16) -> Option<RecordType> {
        RecordType::ALL.iter().find(|(_, known)| *known == number).map(|(kind, _)| *kind)
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The number of the question.
    pub id: u16,
    /// How it went: 0 is well.
    pub code: u8,
    /// Whether it did not fit and must be asked for by TCP.
    pub is_truncated: bool,
    /// The question that it answers: name and type.
    pub question: (String, u16),
    /// The records of the answer section, of the types that are known.
    pub answers: Vec<(RecordType, String)>,
    /// Records in the answer, authority and additional sections.
    pub counts: [u16; 3],
    /// The serial number of the first SOA record in it.
    pub serial: Option<u32>,
}

/// It is not a DNS answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed DNS answer (at byte {at})")]
pub struct MessageError {
    at: usize,
}

/// What a name server says of the question, by its code.
pub fn code_name(code: u8) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "an error",
    }
}

/// A name as it is compared: lower case, without the last dot.
pub fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The question on the wire; `None` where the name cannot be one.
pub fn question(id: u16, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        wire.extend(word.to_be_bytes());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    if wire.len() - HEADER_BYTES > NAME_BYTES_MAX {
        return None;
    }
    wire.extend(kind.number().to_be_bytes());
    wire.extend(CLASS_IN.to_be_bytes());
    Some(wire)
}

/// Whether the answer is to this question.
pub fn answers_to(message: &Message, id: u16, name: &str, kind: RecordType) -> bool {
    message.id == id && message.question == (normal(name), kind.number())
}

/// Reads an answer to one question.
///
/// # Errors
/// It is something else.
pub fn read(wire: &[u8]) -> Result<Message, MessageError> {
    let mut scan = Scan { wire, at: 0 };
    let (id, flags, questions) = (scan.u16()?, scan.u16()?, scan.u16()?);
    let counts = [scan.u16()?, scan.u16()?, scan.u16()?];
    if flags & IS_RESPONSE == 0 || questions != 1 {
        return Err(scan.wrong());
    }
    let question = (normal(&scan.name()?), scan.u16()?);
    scan.u16()?;
    let mut message = Message {
        id,
        code: (flags & 0xF) as u8,
        is_truncated: flags & IS_TRUNCATED != 0,
        question,
        answers: Vec::new(),
        counts,
        serial: None,
    };
    // What was cut off is asked for again, so it need not be whole.
    if !message.is_truncated {
        scan.records(&mut message)?;
    }
    Ok(message)
}

struct Scan<'a> {
    wire: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn wrong(&self) -> MessageError {
        MessageError { at: self.at }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MessageError> {
        let taken = self.wire.get(self.at..self.at + length).ok_or_else(|| self.wrong())?;
        self.at += length;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A name, which may end elsewhere in the message. Pointers lead backwards only, so they end.
    fn name(&mut self) -> Result<String, MessageError> {
        let (mut name, mut length, mut end) = (String::new(), 0, None);
        let mut before = self.at;
        loop {
            let size = usize::from(self.take(1)?[0]);
            match size {
                0 => break,
                0xC0.. => {
                    let low = usize::from(self.take(1)?[0]);
                    end.get_or_insert(self.at);
                    let to = (size & 0x3F) << 8 | low;
                    if to >= before {
                        return Err(self.wrong());
                    }
                    (self.at, before) = (to, to);
                }
                1..=LABEL_BYTES_MAX => {
                    length += size + 1;
                    if length >= NAME_BYTES_MAX {
                        return Err(self.wrong());
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    push_text(&mut name, self.take(size)?);
                }
                _ => return Err(self.wrong()),
            }
        }
        self.at = end.unwrap_or(self.at);
        Ok(name)
    }

    fn records(&mut self, message: &mut Message) -> Result<(), MessageError> {
        let counts = message.counts.map(usize::from);
        if counts.iter().sum::<usize>() > RECORDS_MAX {
            return Err(self.wrong());
        }
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                self.name()?;
                let (kind, class) = (self.u16()?, self.u16()?);
                self.u32()?;
                let length = usize::from(self.u16()?);
                let end = self.at + length;
                if end > self.wire.len() {
                    return Err(self.wrong());
                }
                if let Some(kind) = RecordType::of(kind).filter(|_| class == CLASS_IN) {
                    let (text, serial) = self.data(kind, end)?;
                    message.serial = message.serial.or(serial);
                    if section == 0 {
                        message.answers.push((kind, text));
                    }
                }
                self.at = end;
            }
        }
        Ok(())
    }

    /// The data of a record as text, and a zone's serial number.
    fn data(&mut self, kind: RecordType, end: usize) -> Result<(String, Option<u32>), MessageError> {
        let text = match kind {
            RecordType::A => {
                let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| self.wrong())?;
                Ipv4Addr::from(bytes).to_string()
            }
            RecordType::Aaaa => {
                let bytes: [u8; 16] = self.take(16)?.try_into().map_err(|_| self.wrong())?;
                Ipv6Addr::from(bytes).to_string()
            }
            RecordType::Cname | RecordType::Ns | RecordType::Ptr => normal(&self.name()?),
            RecordType::Mx => {
                let preference = self.u16()?;
                format!("{preference} {}", normal(&self.name()?))
            }
            RecordType::Srv => {
                let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                format!("{priority} {weight} {port} {}", normal(&self.name()?))
            }
            RecordType::Soa => {
                let (first, mailbox) = (normal(&self.name()?), normal(&self.name()?));
                let serial = self.u32()?;
                return Ok((format!("{first} {mailbox} {serial}"), Some(serial)));
            }
            RecordType::Txt => {
                let mut text = String::new();
                while self.at < end {
                    let size = usize::from(self.take(1)?[0]);
                    push_text(&mut text, self.take(size)?);
                }
                text
            }
        };
        Ok((text, None))
    }
}

/// Bytes that are no printable ASCII are written as zone files write them: `\DDD`.
fn push_text(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        if matches!(byte, b' '..=b'~') {
            text.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\{byte:03}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer with two records that point back at the question's name, and a SOA in the authority section.
    fn answer() -> Vec<u8> {
        let mut wire = question(7, "Web1.Example.", RecordType::A).unwrap();
        wire[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2, 0, 1, 0, 0]);
        let record =
            |kind: u8, data: &[u8]| [&[0xC0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8], data].concat();
        wire.extend(record(5, b"\x03srv\xC0\x11"));
        wire.extend(record(1, &[192, 0, 2, 1]));
        wire.extend(record(6, b"\x02ns\xC0\x11\x04root\xC0\x11\x00\x00\x00\x2A________________"));
        wire
    }

    #[test]
    fn a_question_is_answered() {
        let message = read(&answer()).unwrap();
        assert!(answers_to(&message, 7, "web1.example", RecordType::A));
        assert!(!answers_to(&message, 8, "web1.example", RecordType::A));
        assert!(!answers_to(&message, 7, "web2.example", RecordType::A));
        assert_eq!((message.code, message.counts, message.serial), (0, [2, 1, 0], Some(42)));
        let cname = (RecordType::Cname, "srv.example".to_owned());
        assert_eq!(message.answers, vec![cname, (RecordType::A, "192.0.2.1".to_owned())]);
    }

    #[test]
    fn names_that_run_in_circles_or_forwards_are_refused() {
        let mut wire = answer();
        for to in [30, 31, 255] {
            wire[30 + 1] = to;
            assert!(read(&wire).is_err(), "{to}");
        }
        assert!(question(1, "a..b", RecordType::A).is_none());
        assert!(question(1, &"a".repeat(64), RecordType::A).is_none());
        assert!(question(1, &"a.".repeat(200), RecordType::A).is_none());
        assert_eq!(question(1, ".", RecordType::Ns).unwrap().len(), HEADER_BYTES + 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..200, byte in any::<u8>()) {
            let _ = read(&bytes);
            let mut damaged = answer();
            let place = at % damaged.len();
            damaged[place] = byte;
            let _ = read(&damaged);
            damaged.truncate(place);
            let _ = read(&damaged);
        }

        #[test]
        fn a_question_reads_as_itself(id in any::<u16>(), name in "[a-z0-9_-]{1,20}(\\.[a-z0-9]{1,20}){0,4}") {
            let mut wire = question(id, &name, RecordType::Txt).unwrap();
            prop_assert!(read(&wire).is_err(), "a question is no answer");
            wire[2] |= 0x80;
            prop_assert!(answers_to(&read(&wire).unwrap(), id, &name, RecordType::Txt));
        }
    }
}
