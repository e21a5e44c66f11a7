//! OTLP log records as log lines of the store.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::otlp::{DecodeError, any_text, text_of};
use super::problems::Problems;
use super::protobuf::{Fields, Value};
use crate::series::Timestamp;
use crate::store::loglines::LogLine;

/// Longest source, host or template kept, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// Longest identity, unit or word kept, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// A line of a host whose clock is farther ahead has the time at which it came, or it would stand above all others for long.
const AHEAD_MS_MAX: Timestamp = 600_000;

/// Largest record or resource: two bytes of one can become sixty when it is decoded.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most bytes that the lines of one request take: each has its host's name, so a request could become a hundred times as large.
const LINES_BYTES_MAX: usize = 128 << 20;

/// A message is larger than any that makes sense.
#[derive(Debug, thiserror::Error)]
#[error("a resource has {bytes} bytes, more than {MESSAGE_BYTES_MAX}")]
struct LargeError {
    bytes: usize,
}

/// Reads a decompressed body, record by record: lines to be kept, and what cannot be. `now` stands in for a record's missing times.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(body: &[u8], now: Timestamp) -> Result<(Vec<LogLine>, Problems), DecodeError> {
    let mut walk = Walk { now, ..Walk::default() };
    let mut fields = Fields(body);
    while let Some(field) = fields.take().map_err(malformed)? {
        if let (1, Value::Bytes(resource)) = field {
            walk.resource(resource)?;
        }
    }
    Ok((walk.lines, walk.problems))
}

fn malformed(source: impl std::error::Error + Send + Sync + 'static) -> DecodeError {
    DecodeError { what: "logs", source: source.into() }
}

/// A request on its way.
#[derive(Default)]
struct Walk {
    now: Timestamp,
    lines: Vec<LogLine>,
    bytes: usize,
    problems: Problems,
}

impl Walk {
    fn resource(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let mut resource = Resource::default();
        let mut fields = Fields(message);
        while let Some(field) = fields.take().map_err(malformed)? {
            if let (1, Value::Bytes(message)) = field {
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(malformed(LargeError { bytes: message.len() }));
                }
                resource = Resource::decode(message).map_err(malformed)?;
            }
        }
        let host = find(&resource.attributes, &["service.instance.id", "host.name"]);
        let service = find(&resource.attributes, &["service.name"]);
        let mut fields = Fields(message);
        while let Some(field) = fields.take().map_err(malformed)? {
            let (2, Value::Bytes(scope)) = field else { continue };
            let mut fields = Fields(scope);
            while let Some(field) = fields.take().map_err(malformed)? {
                if let (2, Value::Bytes(record)) = field {
                    self.record(record, &host, &service)?;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, message: &[u8], host: &str, service: &str) -> Result<(), DecodeError> {
        let bytes = message.len();
        if bytes > MESSAGE_BYTES_MAX {
            self.problems.add(1, format_args!("log record has {bytes} bytes, more than {MESSAGE_BYTES_MAX}"));
            return Ok(());
        }
        let record = LogRecord::decode(message).map_err(malformed)?;
        let Some(line) = line(&record, host, service, self.now) else {
            self.problems.add(1, "log record without a body");
            return Ok(());
        };
        let texts = [&line.host, &line.source, &line.template_id, &line.template, &line.body];
        let texts = texts.into_iter().chain([&line.unit, &line.precursor, &line.why]);
        let bytes = self.bytes + size_of::<LogLine>() + texts.map(String::len).sum::<usize>();
        if bytes > LINES_BYTES_MAX {
            let reason =
                format_args!("lines of the request take more than {LINES_BYTES_MAX} bytes; send smaller batches");
            self.problems.add(1, reason);
            return Ok(());
        }
        self.bytes = bytes;
        self.lines.push(line);
        Ok(())
    }
}

fn line(record: &LogRecord, host: &str, service: &str, now: Timestamp) -> Option<LogLine> {
    let body = any_text(record.body.as_ref()?)?;
    let nanos = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
    let source = find(&record.attributes, &["log.file.path", "log.file.name"]);
    Some(LogLine {
        t: Some((nanos / 1_000_000) as Timestamp).filter(|t| nanos != 0 && *t <= now + AHEAD_MS_MAX).unwrap_or(now),
        host: cut(host.to_owned()),
        source: cut(if source.is_empty() { service.to_owned() } else { source }),
        severity: record.severity_number.clamp(0, 24),
        template_id: short(find(&record.attributes, &["petrel.template.id"])),
        template: cut(find(&record.attributes, &["petrel.template"])),
        body,
        unit: short(find(&record.attributes, &["systemd.unit"])),
        precursor: short(find(&record.attributes, &["petrel.precursor"])),
        why: short(find(&record.attributes, &["petrel.why"])),
    })
}

/// The first of the keys that has a value; empty where none has.
fn find(attributes: &[KeyValue], keys: &[&str]) -> String {
    keys.iter().find_map(|key| attributes.iter().find(|pair| pair.key == *key).and_then(text_of)).unwrap_or_default()
}

fn cut(text: String) -> String {
    cut_to(text, TEXT_BYTES_MAX)
}

fn short(text: String) -> String {
    cut_to(text, NAME_BYTES_MAX)
}

fn cut_to(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};

    use super::*;

    fn text(text: &str) -> AnyValue {
        AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
    }

    fn attribute(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() }
    }

    #[test]
    fn records_become_lines() {
        let record = LogRecord {
            time_unix_nano: 5_000_000,
            severity_number: 17,
            body: Some(text("disk sda failed")),
            attributes: vec![
                attribute("log.file.path", "/var/log/syslog"),
                attribute("petrel.template.id", "aa"),
                attribute("petrel.template", "disk <*> failed"),
                attribute("systemd.unit", "smartd.service"),
                attribute("petrel.precursor", "smart_failing"),
                attribute("petrel.why", "precursor"),
            ],
            ..LogRecord::default()
        };
        let bare = LogRecord { body: Some(text("hello")), ..LogRecord::default() };
        let attributes = vec![attribute("service.name", "node"), attribute("service.instance.id", "h1")];
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_logs: vec![ScopeLogs {
                    log_records: vec![record, bare, LogRecord::default()],
                    ..ScopeLogs::default()
                }],
                schema_url: String::new(),
            }],
        };
        let (lines, problems) = decode(&request.encode_to_vec(), 9).unwrap();
        let expected = LogLine {
            t: 5,
            host: "h1".to_owned(),
            source: "/var/log/syslog".to_owned(),
            severity: 17,
            template_id: "aa".to_owned(),
            template: "disk <*> failed".to_owned(),
            body: "disk sda failed".to_owned(),
            unit: "smartd.service".to_owned(),
            precursor: "smart_failing".to_owned(),
            why: "precursor".to_owned(),
        };
        assert_eq!(lines[0], expected);
        assert_eq!((lines[1].t, lines[1].source.as_str(), lines[1].severity), (9, "node", 0));
        assert_eq!((lines.len(), problems.count()), (2, 1));
        assert!(decode(&[0xff], 0).unwrap_err().to_string().contains("OTLP logs"));
    }

    #[test]
    fn a_request_does_not_become_a_hundred_times_as_large() {
        let attributes = vec![attribute("service.instance.id", &"h".repeat(1_024))];
        let resource = |attributes, log_records| ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
            schema_url: String::new(),
        };
        let large = LogRecord { body: Some(text(&"x".repeat(2 << 20))), ..LogRecord::default() };
        let mut records = vec![LogRecord { body: Some(text("")), ..LogRecord::default() }; 120_000];
        records.push(large);
        let body = ExportLogsServiceRequest { resource_logs: vec![resource(attributes, records)] }.encode_to_vec();
        let (lines, problems) = decode(&body, 9).unwrap();
        assert!((90_000..119_000).contains(&lines.len()), "{}", lines.len());
        let words = problems.to_string();
        assert!(words.contains("more than 134217728 bytes") && words.contains("log record has 2097"), "{words}");
        let attributes = vec![attribute("a", &"x".repeat(2 << 20))];
        let body = ExportLogsServiceRequest { resource_logs: vec![resource(attributes, vec![])] }.encode_to_vec();
        assert!(decode(&body, 9).is_err());
    }
}
