//! Fingerprints of OpenPGP public keys, so that a repository's key can be pinned without `gpg` on
//! either side. Reads packet framing (RFC 9580, RFC 4880) and nothing inside; verifies no
//! signature: whoever knows the fingerprint has said whose key it is.

use base64::Engine as _;
use sha1::Digest as _;

/// The fingerprints of all primary keys in a key file, armored or binary, in upper-case hex.
///
/// # Errors
/// A sentence if it is not a file of public keys.
pub fn fingerprints(file: &[u8]) -> Result<Vec<String>, String> {
    let packets = match std::str::from_utf8(file) {
        Ok(text) if text.contains("-----BEGIN PGP") => dearmor(text)?,
        _ => file.to_vec(),
    };
    let mut found = Vec::new();
    let mut rest = packets.as_slice();
    while !rest.is_empty() {
        let (tag, body, after) = packet(rest).ok_or("the key file is cut off or not an OpenPGP file")?;
        match tag {
            // Public key.
            6 => found.push(fingerprint(body)?),
            5 | 7 => return Err("the key file holds a secret key: export the public one".to_owned()),
            _ if found.is_empty() => return Err("the key file does not begin with a public key".to_owned()),
            _ => {}
        }
        rest = after;
    }
    if found.is_empty() { Err("the key file is empty".to_owned()) } else { Ok(found) }
}

/// All armored blocks of a text, decoded.
fn dearmor(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != "-----BEGIN PGP PUBLIC KEY BLOCK-----" {
            if line.starts_with("-----BEGIN PGP") {
                return Err(format!("the key file holds `{}` and not a public key", line.trim_matches('-')));
            }
            continue;
        }
        let mut digits = String::new();
        let mut in_head = true;
        let mut closed = false;
        for line in lines.by_ref() {
            if line == "-----END PGP PUBLIC KEY BLOCK-----" {
                closed = true;
                break;
            }
            // Headers such as `Version: x` end with an empty line; `=abcd` is the check sum.
            if in_head && (line.is_empty() || line.contains(": ")) {
                in_head = !line.is_empty();
                continue;
            }
            in_head = false;
            if !line.starts_with('=') {
                digits.push_str(line);
            }
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(&digits).ok().filter(|_| closed);
        out.extend(decoded.ok_or("the key file's armor is damaged")?);
    }
    Ok(out)
}

/// The first packet: its tag, its body, and what follows.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&head, rest) = bytes.split_first()?;
    if head & 0x80 == 0 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let (tag, size, rest) = if head & 0x40 != 0 {
        let (&first, after) = rest.split_first()?;
        match first {
            0..=191 => (head & 0x3f, usize::from(first), after),
            192..=223 => (head & 0x3f, ((usize::from(first) - 192) << 8) + usize::from(*after.first()?) + 192, &after[1..]),
            255 => (head & 0x3f, number(after.get(..4)?), &after[4..]),
            // Partial lengths are for data, never for keys.
            224..=254 => return None,
        }
    } else {
        let width = match head & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return None,
        };
        ((head >> 2) & 0x0f, number(rest.get(..width)?), &rest[width..])
    };
    (size <= rest.len()).then(|| (tag, &rest[..size], &rest[size..]))
}

fn fingerprint(body: &[u8]) -> Result<String, String> {
    let hex = |bytes: &[u8]| crate::secret::hex(bytes).to_uppercase();
    match body.first() {
        Some(4) => {
            let size = u16::try_from(body.len()).map_err(|_| "the key is too large".to_owned())?;
            let mut hash = sha1::Sha1::new();
            hash.update([0x99]);
            hash.update(size.to_be_bytes());
            hash.update(body);
            Ok(hex(&hash.finalize()))
        }
        Some(6) => {
            let size = u32::try_from(body.len()).map_err(|_| "the key is too large".to_owned())?;
            let mut hash = sha2::Sha256::new();
            hash.update([0x9b]);
            hash.update(size.to_be_bytes());
            hash.update(body);
            Ok(hex(&hash.finalize()))
        }
        Some(version) => Err(format!("the key is of version {version}, which is not supported")),
        None => Err("the key is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `gpg --quick-generate-key`; the fingerprint is the one that `gpg` shows.
    const ARMORED: &str = include_str!("testdata/example.asc");
    const FINGERPRINT: &str = "25425FD940EDE3D542EB8894BAF6241CD56D828C";

    #[test]
    fn the_fingerprint_is_gpgs() {
        assert_eq!(fingerprints(ARMORED.as_bytes()).unwrap(), [FINGERPRINT]);
        let binary = dearmor(ARMORED).unwrap();
        assert_eq!(fingerprints(&binary).unwrap(), [FINGERPRINT]);
        let twice = [binary.clone(), binary].concat();
        assert_eq!(fingerprints(&twice).unwrap().len(), 2);
    }

    #[test]
    fn damaged_and_other_files_are_refused() {
        let binary = dearmor(ARMORED).unwrap();
        for cut in 1..binary.len() {
            let _ = fingerprints(&binary[..cut]);
        }
        assert!(fingerprints(&binary[..40]).is_err());
        assert!(fingerprints(b"").is_err() && fingerprints(b"<html>").is_err());
        assert!(fingerprints(ARMORED.replace("PUBLIC KEY", "PRIVATE KEY").as_bytes()).is_err());
        assert!(fingerprints(&ARMORED.as_bytes()[..200]).is_err());
        let mut changed = binary;
        changed[10] ^= 1;
        assert_ne!(fingerprints(&changed).unwrap(), [FINGERPRINT]);
    }
}
