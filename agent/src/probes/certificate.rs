//! When a certificate ends: the one fact of it that checks report. A walk to `notAfter` through DER (X.690, RFC 5280 section
//! 4.1), because a parser of all of X.509 would be a large dependency for one date. Pure; judges nothing: that is rustls' task.

/// Tags of X.690 that lie on the way.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` in seconds since 1970; `None` for what is not a certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (signed, _) = element(certificate, SEQUENCE)?;
    let (tag, _, rest) = any_element(signed)?;
    // The version may be left out; then this was the serial number already.
    let rest = if tag == VERSION { any_element(rest)?.2 } else { rest };
    let (_, rest) = element(rest, SEQUENCE)?; // signature algorithm
    let (_, rest) = element(rest, SEQUENCE)?; // issuer
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any_element(validity)?; // notBefore
    let (tag, time, _) = any_element(rest)?;
    match tag {
        // Two digits: 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1).
        UTC_TIME => {
            let year = number(time.get(..2)?)?;
            seconds(if year < 50 { 2000 + year } else { 1900 + year }, time.get(2..)?)
        }
        GENERALIZED_TIME => seconds(number(time.get(..4)?)?, time.get(4..)?),
        _ => None,
    }
}

/// The content of the element that begins here, which must have this tag, and what follows it.
fn element(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any_element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag and content of the element that begins here, and what follows it.
fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = if first < 0x80 {
        (usize::from(first), der)
    } else {
        let (digits, der) = der.split_at_checked(usize::from(first & 0x7F))?;
        // Four bytes of length are 4 GiB.
        if !(1..=4).contains(&digits.len()) {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), der)
    };
    let (content, rest) = der.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// `MMDDHHMMSSZ` of a year; X.509 allows no other form.
fn seconds(year: i64, rest: &[u8]) -> Option<i64> {
    let [digits @ .., b'Z'] = rest else { return None };
    if digits.len() != 10 {
        return None;
    }
    let part = |at: usize| number(&digits[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March, so that the odd day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["web1.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1960, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_real_certificates_is_read() {
        for (year, month, day, end) in [
            (1999, 12, 31, 946_598_400),
            (2024, 2, 29, 1_709_164_800),
            (2026, 11, 22, 1_795_305_600),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (9999, 12, 31, 253_402_214_400),
        ] {
            assert_eq!(not_after(&made(year, month, day)), Some(end), "{year}-{month}-{day}");
        }
        assert_eq!(not_after(b""), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..300, byte in any::<u8>()) {
            let _ = not_after(&bytes);
            let mut damaged = made(2030, 1, 1);
            let place = at % damaged.len();
            damaged[place] = byte;
            let _ = not_after(&damaged);
            damaged.truncate(place);
            prop_assert_eq!(not_after(&damaged), None);
        }
    }
}
