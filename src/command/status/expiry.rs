//! When a certificate ends: reads the one field that is needed out of PEM and DER.

use base64::Engine as _;

/// When the certificate of some PEM text that ends first ends, in seconds since the epoch.
pub(super) fn first_end(pem: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(pem).ok()?;
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    blocks.filter_map(|block| block.split("-----END").next()).filter_map(end_of_block).min()
}

fn end_of_block(body: &str) -> Option<i64> {
    let compact: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(compact).ok()?;
    not_after(&der)
}

/// Certificate -> TBSCertificate -> [version], serial, algorithm, issuer, validity -> notAfter.
fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let mut rest = body;
    if let (0xa0, _, after) = element(rest)? {
        rest = after;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, after_start) = element(validity)?;
    let (tag, time, _) = element(after_start)?;
    let text = std::str::from_utf8(time).ok()?.trim_end_matches('Z');
    let full = match tag {
        // UTCTime: years 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1).
        0x17 => format!("{}{text}", if text.get(..2)?.parse::<u8>().ok()? >= 50 { "19" } else { "20" }),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", full).ok()?;
    time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_second())
}

/// One DER element: its tag, its content, what comes behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_of_real_certificates() {
        let pem = |year: i32| {
            let mut parameters = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 3, 4);
            let key = rcgen::KeyPair::generate().unwrap();
            parameters.self_signed(&key).unwrap().pem()
        };
        let second = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!(first_end(pem(2031).as_bytes()), Some(second("2031-03-04T00:00:00Z")));
        assert_eq!(first_end(format!("{}\n{}", pem(2061), pem(2032)).as_bytes()), Some(second("2032-03-04T00:00:00Z")));
        assert_eq!(first_end(pem(2061).as_bytes()), Some(second("2061-03-04T00:00:00Z")));
        for wrong in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----"]
        {
            assert_eq!(first_end(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
