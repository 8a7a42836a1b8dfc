//! Compose's spelling of sizes, shares of processors and durations, in base units.

use serde_json::Value;

/// A size in bytes: `512m`, `8G`, `1.5gb`, or a number of bytes. Units are binary, as in Docker.
#[must_use]
pub fn bytes(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let text = value.as_str()?.trim().to_ascii_lowercase();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    scaled(number, factor)
}

/// A share of processors in thousand-millionths, as Docker counts: `0.5` is 500 000 000.
#[must_use]
pub fn nano_cpus(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => scaled(&number.to_string(), 1_000_000_000),
        Value::String(text) => scaled(text.trim(), 1_000_000_000),
        _ => None,
    }
}

/// A duration in seconds, rounded up: `90s`, `1m30s`, `500ms`, `2h`, or a number of seconds.
#[must_use]
pub fn seconds(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let text = value.as_str()?.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let mut micros: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after = &rest[digits..];
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let factor = match &after[..unit_len] {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return None,
        };
        micros = micros.checked_add(scaled(&rest[..digits], factor)?)?;
        rest = &after[unit_len..];
    }
    (!text.is_empty()).then(|| micros.div_ceil(1_000_000))
}

/// A decimal number times a factor, exact for up to nine decimals; no floating point involved.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let decimals = decimals.get(..decimals.len().min(9))?;
    let part: u128 = if decimals.is_empty() { 0 } else { decimals.parse().ok()? };
    let scale = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let factor = u128::from(factor);
    u64::try_from(whole.checked_mul(factor)? + part * factor / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_shares_and_durations() {
        assert_eq!(bytes(&json!("8G")), Some(8 << 30));
        assert_eq!(bytes(&json!("1.5gb")), Some(3 << 29));
        assert_eq!(bytes(&json!(1024)), Some(1024));
        assert_eq!(bytes(&json!("8 parsec")), None);
        assert_eq!(nano_cpus(&json!("2.0")), Some(2_000_000_000));
        assert_eq!(nano_cpus(&json!(0.25)), Some(250_000_000));
        assert_eq!(seconds(&json!("1m30s")), Some(90));
        assert_eq!(seconds(&json!("500ms")), Some(1));
        assert_eq!(seconds(&json!("")), None);
        assert_eq!(seconds(&json!("5 apples")), None);
    }
}
