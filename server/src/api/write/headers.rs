//! What the headers of a request say: which agent sends which batch, and how the body is packed. Nothing of them is believed that
//! does not parse.

use axum::http::{HeaderMap, header};
use petrel_agent::stream::protocol::{Class, HEADER_AGENT, HEADER_CLASS, HEADER_EPOCH, HEADER_SEQ};

use super::PROTOBUF;
use super::refusal::Refusal;
use crate::store::Mark;

/// What comes before an OTLP body: its encoding, and the agent's mark.
pub(super) fn opening(headers: &HeaderMap, class: Class) -> Result<(String, Option<Mark>), Refusal> {
    let found = text(headers, header::CONTENT_TYPE.as_str());
    if !found.is_empty() && !found.starts_with(PROTOBUF) {
        return Err(Refusal::ContentType { found, allowed: PROTOBUF });
    }
    Ok((text(headers, header::CONTENT_ENCODING.as_str()), mark(headers, class)?))
}

/// A header as text; empty where it is missing or no text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase()
}

/// The four headers of an agent: all of them or none.
pub(super) fn mark(headers: &HeaderMap, class: Class) -> Result<Option<Mark>, Refusal> {
    let names = [HEADER_AGENT, HEADER_EPOCH, HEADER_CLASS, HEADER_SEQ];
    let wrong = |header, problem| Refusal::Header { header, problem };
    if names.iter().all(|name| !headers.contains_key(*name)) {
        return Ok(None);
    }
    let get = |name: &'static str| {
        let value = headers.get(name).ok_or(wrong(name, "is missing; send all four of an agent or none"))?;
        let value = value.to_str().map_err(|_| wrong(name, "is not printable ASCII"))?;
        let fits = !value.is_empty() && value.len() <= 255 && value.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(value) } else { Err(wrong(name, "must be 1 to 255 bytes of printable ASCII without spaces")) }
    };
    let (agent, epoch, class_word, seq) =
        (get(HEADER_AGENT)?, get(HEADER_EPOCH)?, get(HEADER_CLASS)?, get(HEADER_SEQ)?);
    if Class::parse(class_word) != Some(class) {
        return Err(wrong(HEADER_CLASS, "does not name the class that this path takes"));
    }
    let seq = seq.parse().ok().filter(|seq| (1..=i64::MAX as u64).contains(seq));
    let seq = seq.ok_or(wrong(HEADER_SEQ, "is not a number from 1 on"))?;
    Ok(Some(Mark { agent: agent.to_owned(), epoch: epoch.to_owned(), class, seq }))
}
