//! What a check or a scrape comes to: values under the names that blackbox_exporter gave them, and where it failed, why.

use std::borrow::Cow;

use crate::collect::{Family, Kind};
use crate::logs::masked;

/// Why something failed: a closed list, because it becomes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No answer within the time.
    Timeout,
    /// The name has no address.
    Lookup,
    /// No connection.
    Connect,
    /// TLS: no common ground, or a certificate that is not trusted.
    Tls,
    /// Redirected in circles, or where secrets may not go.
    Redirect,
    /// The other side broke off, or does not speak the protocol.
    Protocol,
    /// Another status than expected: HTTP, DNS, or an exit code.
    Status,
    /// The content is not as expected.
    Content,
    /// The content is longer than allowed.
    TooLong,
    /// A file that the config names cannot be used, or the program not be run.
    Config,
}

impl Reason {
    /// As label.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Timeout => "timeout",
            Reason::Lookup => "lookup",
            Reason::Connect => "connect",
            Reason::Tls => "tls",
            Reason::Redirect => "redirect",
            Reason::Protocol => "protocol",
            Reason::Status => "status",
            Reason::Content => "content",
            Reason::TooLong => "too_long",
            Reason::Config => "config",
        }
    }
}

/// A failure: its kind, and words for the log. They hold no secret and are bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub reason: Reason,
    /// For people.
    pub words: String,
}

/// Most letters of a failure's words.
const WORDS_CHARS_MAX: usize = 300;
/// Most letters that are looked through for secrets; masking makes some shorter, so these are more than are kept.
const MASKED_CHARS_MAX: usize = 4096;

impl Failure {
    /// A failure. Its words may be what a program or another host said: secrets in them are masked as in log lines, control
    /// characters go, and they are cut to a bearable length.
    pub fn new(reason: Reason, words: impl AsRef<str>) -> Failure {
        let words = words.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c });
        let words: String = words.take(MASKED_CHARS_MAX).collect();
        Failure { reason, words: masked(&words).chars().take(WORDS_CHARS_MAX).collect() }
    }

    /// Nothing came within the time.
    pub fn late(within: std::time::Duration) -> Failure {
        Failure::new(Reason::Timeout, format!("no answer within {within:?}"))
    }
}

/// What is measured; the order is that of the families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its help, below")]
pub enum Measure {
    Success,
    Duration,
    LookupTime,
    IpProtocol,
    CertificateEnd,
    FailedByRegex,
    HttpStatus,
    HttpVersion,
    HttpRedirects,
    HttpContentLength,
    HttpBodyLength,
    HttpTls,
    DnsAnswers,
    DnsAuthorities,
    DnsAdditionals,
    DnsSerial,
    ExitCode,
    Perfdata,
    FailureInfo,
}

/// Name and help of each measure, in the order of [`Measure`].
const MEASURES: [(&str, &str); 19] = [
    ("probe_success", "Whether the check succeeded."),
    ("probe_duration_seconds", "How long the check took."),
    ("probe_dns_lookup_time_seconds", "Time that looking up the target's name took."),
    ("probe_ip_protocol", "Whether the check used IPv4 or IPv6."),
    ("probe_ssl_earliest_cert_expiry", "When the first of the server's certificates ends, in seconds since 1970."),
    ("probe_failed_due_to_regex", "Whether the content was not as expected."),
    ("probe_http_status_code", "HTTP status of the answer."),
    ("probe_http_version", "HTTP version of the answer."),
    ("probe_http_redirects", "How often the request was sent elsewhere."),
    ("probe_http_content_length", "Length of the body as the answer's header says; -1 where it says none."),
    ("probe_http_uncompressed_body_length", "Length of the body that was read."),
    ("probe_http_ssl", "Whether the answer came over TLS."),
    ("probe_dns_answer_rrs", "Records in the answer section."),
    ("probe_dns_authority_rrs", "Records in the authority section."),
    ("probe_dns_additional_rrs", "Records in the additional section."),
    ("probe_dns_serial", "Serial number of the zone."),
    ("petrel_check_exit_code", "Exit code of the check's program."),
    ("petrel_check_perfdata", "Performance data of the check's program."),
    ("petrel_check_failure_info", "Why the check failed."),
];

/// Labels beyond the check's own.
pub type Labels = Vec<(&'static str, String)>;

/// What one run of a check gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    points: Vec<(Measure, Labels, f64)>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// Adds a value.
    pub fn push(&mut self, measure: Measure, value: f64) {
        self.points.push((measure, Labels::new(), value));
    }

    /// Adds a value with labels of its own.
    pub fn push_with(&mut self, measure: Measure, labels: Labels, value: f64) {
        self.points.push((measure, labels, value));
    }

    /// The first failure counts.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// A value, for those who ask for one.
    pub fn value(&self, measure: Measure) -> Option<f64> {
        self.points.iter().find(|(at, _, _)| *at == measure).map(|(_, _, value)| *value)
    }
}

/// The families of all checks: name and target of each, and what its last run gave.
pub fn families(checks: &[(&str, &str, &Outcome)]) -> Vec<Family> {
    let families = MEASURES.iter().enumerate().map(|(at, (name, help))| {
        let mut family = Family::new(Kind::Gauge, *name, *help);
        for (check, target, outcome) in checks {
            for (_, labels, value) in outcome.points.iter().filter(|(measure, _, _)| *measure as usize == at) {
                let own = [("check", *check), ("target", *target)];
                let labels = own.into_iter().chain(labels.iter().map(|(name, text)| (*name, text.as_str())));
                let labels = labels.map(|(name, text)| (Cow::Borrowed(name), Cow::Owned(text.to_owned())));
                family.push_owned(labels.collect(), *value);
            }
        }
        family
    });
    families.filter(|family| !family.points.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_failure_hold_no_secret_and_are_bounded() {
        let words = |said: &str| Failure::new(Reason::Status, format!("exited with 2: {said}")).words;
        let told = words("cannot log in as root, password=hunter2 \u{1b}[31m");
        assert!(
            told.starts_with("exited with 2: cannot log in as root, password=***") && !told.contains('\u{1b}'),
            "{told}"
        );
        // A secret that stands across the end of what is kept is masked before it is cut.
        let told = words(&format!("{} ghp_0123456789abcdefghij0123456789abcdef", "x".repeat(270)));
        assert!(told.ends_with(" ***") && told.len() <= WORDS_CHARS_MAX, "{told}");
        assert_eq!(words(&"y".repeat(1 << 20)).len(), WORDS_CHARS_MAX);
    }
}
