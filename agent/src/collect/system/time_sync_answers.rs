//! What the daemons that keep a clock answer, read.

/// What is known of a clock that is kept. What a daemon does not tell is `None`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Kept {
    /// Address or name of the reference; empty without one.
    pub(super) reference: String,
    pub(super) synchronized: bool,
    /// Positive when the host's clock is ahead.
    pub(super) ahead_seconds: Option<f64>,
    pub(super) stratum: Option<f64>,
    pub(super) error_seconds_max: Option<f64>,
    pub(super) frequency_ppm: Option<f64>,
    pub(super) reference_seconds: Option<f64>,
}

/// No reference.
const STRATUM_NONE: f64 = 16.0;
/// Longest name of a reference that is told.
const REFERENCE_CHARS_MAX: usize = 100;

/// `chronyc -c tracking`: fourteen fields with commas between them.
pub(super) fn chrony(out: &str) -> Option<Kept> {
    let fields: Vec<&str> = out.lines().next()?.split(',').collect();
    let [identity, name, stratum, heard, correction, _, _, frequency, _, _, delay, dispersion, _, leap] =
        fields.as_slice()
    else {
        return None;
    };
    let number = |field: &str| field.parse::<f64>().ok();
    // chrony counts what it has to add: a clock that is ahead has a negative correction.
    let ahead = -number(correction)?;
    Some(Kept {
        reference: reference(if name.is_empty() { identity } else { name }),
        synchronized: *leap != "Not synchronised",
        ahead_seconds: Some(ahead),
        stratum: number(stratum).map(|stratum| if stratum == 0.0 { STRATUM_NONE } else { stratum }),
        error_seconds_max: number(delay).zip(number(dispersion)).map(|(delay, dispersion)| delay / 2.0 + dispersion),
        frequency_ppm: number(frequency),
        reference_seconds: number(heard).filter(|seconds| *seconds > 0.0),
    })
}

/// `ntpq -c "rv 0"`: `key=value` with commas between them, milliseconds.
pub(super) fn ntpd(out: &str) -> Option<Kept> {
    let value = |wanted: &str| {
        let pairs = out.split([',', '\n']).filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find_map(|(key, value)| (key == wanted).then(|| value.trim_matches('"')))
    };
    let number = |key: &str| value(key).and_then(|value| value.parse::<f64>().ok());
    let stratum = number("stratum")?;
    Some(Kept {
        reference: reference(value("refid").unwrap_or_default()),
        synchronized: stratum < STRATUM_NONE && value("leap") != Some("11"),
        // What the reference shows less what the host shows.
        ahead_seconds: number("offset").map(|offset| -offset / 1000.0),
        stratum: Some(stratum),
        error_seconds_max: number("rootdelay")
            .zip(number("rootdisp"))
            .map(|(delay, dispersion)| (delay / 2.0 + dispersion) / 1000.0),
        frequency_ppm: number("frequency"),
        reference_seconds: None,
    })
}

/// `timedatectl timesync-status`: lines of a name, a colon and a value.
pub(super) fn timesyncd(out: &str) -> Option<Kept> {
    let value = |wanted: &str| {
        let pairs = out.lines().filter_map(|line| line.split_once(':'));
        pairs.into_iter().find_map(|(key, value)| (key.trim() == wanted).then(|| value.trim()))
    };
    let server = value("Server")?;
    let stratum = value("Stratum").and_then(|text| text.parse::<f64>().ok());
    Some(Kept {
        reference: reference(server.split(' ').next().unwrap_or_default()),
        // Before the first answer there is a server and no stratum.
        synchronized: stratum.is_some_and(|stratum| stratum < STRATUM_NONE)
            && value("Leap") != Some("not synchronized"),
        ahead_seconds: value("Offset").and_then(timespan).map(|offset| -offset),
        stratum,
        error_seconds_max: value("Root distance").and_then(|text| timespan(text.split(' ').next()?)),
        frequency_ppm: value("Frequency").and_then(|text| text.strip_suffix("ppm")?.parse().ok()),
        reference_seconds: None,
    })
}

/// `+1min 2.5s` or `-25us`, in seconds.
fn timespan(text: &str) -> Option<f64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut sum = 0.0;
    for part in rest.split_ascii_whitespace() {
        let unit = part.find(|letter: char| letter.is_ascii_alphabetic())?;
        let number: f64 = part[..unit].parse().ok()?;
        sum += match &part[unit..] {
            "us" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            "min" => number * 60.0,
            "h" => number * 3600.0,
            "d" | "day" | "days" => number * 86_400.0,
            _ => return None,
        };
    }
    (!rest.trim().is_empty()).then_some(sign * sum)
}

fn reference(name: &str) -> String {
    name.chars().take(REFERENCE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    const CHRONY: &str = include_str!("../../../testdata/chrony/tracking.csv");
    // As the sources of ntp 4.2.8 and systemd 252 print it; not recorded.
    const NTPD: &str = "associd=0 status=0615 leap_none, sync_ntp, 1 event, clock_sync,\nversion=\"ntpd 4.2.8p15\", processor=\"x86_64\",\nleap=00, stratum=3, precision=-24, rootdelay=12.000, rootdisp=4.000,\nrefid=192.0.2.1, offset=-0.250000, frequency=-7.500, sys_jitter=0.1\n";
    const TIMESYNCD: &str = "       Server: 192.0.2.1 (ntp.example)\nPoll interval: 34min 8s (min: 32s; max 34min 8s)\n         Leap: normal\n      Version: 4\n      Stratum: 2\n    Reference: C0000201\n    Precision: 1us (-25)\nRoot distance: 1.5ms (max: 5s)\n       Offset: +1min 2.5ms\n        Delay: 20ms\n Packet count: 41\n    Frequency: -12.750ppm\n";

    #[test]
    fn three_daemons() {
        expect![[r#"
            Some(
                Kept {
                    reference: "127.0.0.1",
                    synchronized: true,
                    ahead_seconds: Some(
                        1.274e-6,
                    ),
                    stratum: Some(
                        9.0,
                    ),
                    error_seconds_max: Some(
                        4.805e-6,
                    ),
                    frequency_ppm: Some(
                        0.002,
                    ),
                    reference_seconds: Some(
                        1795390189.677857,
                    ),
                },
            )
        "#]]
        .assert_eq(&format!("{:#?}\n", chrony(CHRONY)));
        expect![[r#"
            Some(
                Kept {
                    reference: "192.0.2.1",
                    synchronized: true,
                    ahead_seconds: Some(
                        0.00025,
                    ),
                    stratum: Some(
                        3.0,
                    ),
                    error_seconds_max: Some(
                        0.01,
                    ),
                    frequency_ppm: Some(
                        -7.5,
                    ),
                    reference_seconds: None,
                },
            )
        "#]]
        .assert_eq(&format!("{:#?}\n", ntpd(NTPD)));
        expect![[r#"
            Some(
                Kept {
                    reference: "192.0.2.1",
                    synchronized: true,
                    ahead_seconds: Some(
                        -60.0025,
                    ),
                    stratum: Some(
                        2.0,
                    ),
                    error_seconds_max: Some(
                        0.0015,
                    ),
                    frequency_ppm: Some(
                        -12.75,
                    ),
                    reference_seconds: None,
                },
            )
        "#]]
        .assert_eq(&format!("{:#?}\n", timesyncd(TIMESYNCD)));
    }

    #[test]
    fn daemons_without_a_reference() {
        let kept = chrony("00000000,,0,0.000000000,0.000000000,0,0,0.0,0,0,1.0,1.0,0.0,Not synchronised\n").unwrap();
        assert_eq!((kept.synchronized, kept.stratum, kept.reference_seconds), (false, Some(16.0), None));
        assert!(!ntpd("leap=11, stratum=16, offset=0.000").unwrap().synchronized);
        assert!(!timesyncd("Server: (null) (ntp.example)\n").unwrap().synchronized);
        assert_eq!((chrony("506 Cannot talk to daemon"), ntpd("refused"), timesyncd("")), (None, None, None));
        assert_eq!((timespan("-25us"), timespan("soon"), timespan("")), (Some(-25e-6), None, None));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(one in trial::near(CHRONY), two in trial::near(NTPD), three in trial::near(TIMESYNCD)) {
            for bytes in [one, two, three] {
                let text = String::from_utf8_lossy(&bytes);
                let _ = (chrony(&text), ntpd(&text), timesyncd(&text), timespan(&text));
            }
        }
    }
}
