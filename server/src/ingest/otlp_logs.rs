//! OTLP log records as log lines of the store.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

use super::otlp::{DecodeError, any_text, text_of};
use super::problems::Problems;
use crate::series::Timestamp;
use crate::store::loglines::LogLine;

/// Longest source, host or template kept, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// Reads a decompressed body: lines to be kept, and what cannot be. `now` stands in for a record's missing times.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(body: &[u8], now: Timestamp) -> Result<(Vec<LogLine>, Problems), DecodeError> {
    let request =
        ExportLogsServiceRequest::decode(body).map_err(|source| DecodeError { what: "logs", source: source.into() })?;
    let mut lines = Vec::new();
    let mut problems = Problems::default();
    for resource in request.resource_logs {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let host = find(&attributes, &["service.instance.id", "host.name"]);
        let service = find(&attributes, &["service.name"]);
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            match line(&record, &host, &service, now) {
                Some(line) => lines.push(line),
                None => problems.add(1, "log record without a body"),
            }
        }
    }
    Ok((lines, problems))
}

fn line(record: &LogRecord, host: &str, service: &str, now: Timestamp) -> Option<LogLine> {
    let body = any_text(record.body.as_ref()?)?;
    let nanos = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
    let source = find(&record.attributes, &["log.file.path", "log.file.name"]);
    Some(LogLine {
        t: if nanos == 0 { now } else { (nanos / 1_000_000) as Timestamp },
        host: cut(host.to_owned()),
        source: cut(if source.is_empty() { service.to_owned() } else { source }),
        severity: record.severity_number.clamp(0, 24),
        template_id: cut(find(&record.attributes, &["petrel.template.id"])),
        template: cut(find(&record.attributes, &["petrel.template"])),
        body,
    })
}

/// The first of the keys that has a value; empty where none has.
fn find(attributes: &[KeyValue], keys: &[&str]) -> String {
    keys.iter().find_map(|key| attributes.iter().find(|pair| pair.key == *key).and_then(text_of)).unwrap_or_default()
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;

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
        };
        assert_eq!(lines[0], expected);
        assert_eq!((lines[1].t, lines[1].source.as_str(), lines[1].severity), (9, "node", 0));
        assert_eq!((lines.len(), problems.count()), (2, 1));
        assert!(decode(&[0xff], 0).unwrap_err().to_string().contains("OTLP logs"));
    }
}
