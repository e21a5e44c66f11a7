//! The mail of a notice, byte for byte where it matters.

use super::*;
use crate::decide::alert::{Basis, PredictionNote};
use crate::notify::config::{Destination, RawNotifyConfig};
use crate::notify::group::tests::alert;

pub(in crate::notify) fn target(text: &str) -> Email {
    let config = format!("receivers:\n- name: ops\n  email: {{ {text} }}\nroutes:\n- receivers: [ops]\n");
    let raw = serde_saphyr::from_str::<RawNotifyConfig>(&config).unwrap();
    match raw.check("http://petrel.example").unwrap().receivers.remove(0).destination {
        Destination::Email(email) => *email,
        Destination::Webhook(_) => panic!(),
    }
}

pub(in crate::notify) fn notice() -> Notice {
    let mut predicted = alert("FilesystemFullSoon@web1", 1_790_000_000_000);
    predicted.labels.insert("mountpoint".to_owned(), "/data".to_owned());
    predicted.basis = Basis::Predicted;
    predicted.prediction = Some(PredictionNote { probability: 0.931, lead_seconds: Some(2523.0) });
    predicted.annotations = [
        ("summary", "web1: /data full in 42m 3s (p 0.93)"),
        ("description", "At its present course /data on web1 runs out of space within 6 hours. <b>Careful</b>"),
        ("petrel_probability", "0.931"),
        ("runbook_url", "https://wiki.example/disk"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    Notice {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        receiver: "ops".to_owned(),
        group_key: "{}/{}:{alertname=\"FilesystemFullSoon\"}".to_owned(),
        group_labels: [("alertname".to_owned(), "FilesystemFullSoon".to_owned())].into(),
        alerts: vec![predicted, alert("HostDown@web2/critical-", 1_790_000_000_000)],
        truncated: 0,
        created_at: 1_790_000_001_000,
    }
}

#[test]
fn a_mail_says_what_where_how_likely_and_how_long() {
    let target = target("smarthost: 'mail:587', from: 'Petrel <petrel@x.example>', to: [ops@x.example, b@x.example]");
    let mail = message(&target, &notice(), "http://petrel.example").unwrap();
    let bytes = String::from_utf8(mail.formatted()).unwrap();
    for wanted in [
        "Message-ID: <0123456789abcdef0123456789abcdef@x.example>",
        "Subject: [warning] web1: /data full in 42m 3s (p 0.93) (+1 more)",
        "To: ops@x.example, b@x.example",
        "Content-Type: multipart/alternative;",
        "boundary=\"petrel-0123456789abcdef0123456789abcdef\"",
        "Probability: 93 %",
        "Time left: 42 min",
        "mountpoint: /data",
        "[resolved] web2: HostDown happens",
    ] {
        assert!(bytes.contains(wanted), "{wanted} is not in\n{bytes}");
    }
    assert!(!bytes.contains("<b>Careful</b></div>"), "texts of rules are escaped in HTML");
    let again = message(&target, &notice(), "http://petrel.example").unwrap();
    assert_eq!(again.formatted(), mail.formatted(), "a repeat is the same mail");
}

#[test]
fn subjects_are_one_line() {
    let mut notice = notice();
    notice.alerts.truncate(1);
    notice.alerts[0].annotations.insert("summary".to_owned(), format!("a\r\nBcc: evil@x {}", "y".repeat(500)));
    let subject = subject(&notice);
    assert!(subject.starts_with("[warning] a  Bcc: evil@x yyy") && subject.chars().count() <= SUBJECT_MAX);
    notice.alerts[0].annotations.clear();
    assert_eq!(super::subject(&notice), "[warning] web1: FilesystemFullSoon");
}
