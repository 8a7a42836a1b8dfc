//! Moments as users write them: `2h`, `3d`, `2026-12-01`, `2026-12-01T08:00Z`.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A length of time, signed.
fn length(text: &str) -> Result<SignedDuration, String> {
    SignedDuration::try_from(crate::cli::length(text)?).map_err(|_| format!("`{text}` is too long"))
}

/// The moment some time ago, in seconds since the epoch.
pub(super) fn ago(text: &str) -> Result<i64, String> {
    Timestamp::now().checked_sub(length(text)?).map(Timestamp::as_second).map_err(|error| error.to_string())
}

/// A moment to come: some time from now, or a date or time (UTC unless it says otherwise).
pub(super) fn until(text: &str, now: Timestamp) -> Result<i64, String> {
    let text = text.trim();
    let moment = if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('-') {
        now.checked_add(length(text)?).map_err(|error| error.to_string())?
    } else {
        absolute(text)?
    };
    if moment <= now { Err(format!("`{text}` is over already")) } else { Ok(moment.as_second()) }
}

fn absolute(text: &str) -> Result<Timestamp, String> {
    let civil = |time: DateTime| time.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).ok();
    let zoned = text.parse::<Timestamp>().ok();
    // A date as such is asked for by its length: the parser of dates takes times too, and drops them.
    let date = if text.len() == 10 { text.parse::<Date>().ok().and_then(|date| civil(date.at(0, 0, 0, 0))) } else { None };
    let time = zoned.or(date).or_else(|| text.trim_end_matches('Z').parse::<DateTime>().ok().and_then(civil));
    time.ok_or_else(|| format!("`{text}` is no time: write `2h`, `3d`, `2026-12-01` or `2026-12-01T08:00Z` (UTC)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_dates_and_times() {
        let now: Timestamp = "2026-11-28T00:00:00Z".parse().unwrap();
        let at = |text: &str| until(text, now).map(|seconds| Timestamp::from_second(seconds).unwrap().to_string());
        assert_eq!(at("2h").unwrap(), "2026-11-28T02:00:00Z");
        assert_eq!(at("1d12h").unwrap(), "2026-11-29T12:00:00Z");
        assert_eq!(at("2026-12-01").unwrap(), "2026-12-01T00:00:00Z");
        assert_eq!(at("2026-12-01T08:00Z").unwrap(), "2026-12-01T08:00:00Z");
        assert_eq!(at("2026-12-01T08:00:00+02:00").unwrap(), "2026-12-01T06:00:00Z");
        assert_eq!(at("2026-12-01 08:00").unwrap(), "2026-12-01T08:00:00Z");
        for wrong in ["", "2", "2x", "h", "tomorrow", "2020-01-01", "0s", "99999999999999999999d", "9999999999999d", "2026-13-01"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
