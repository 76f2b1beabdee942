//! Counts and times in the words of a message.

use jiff::Timestamp;
use jiff::tz::Offset;

/// `1 record`, `1022 records`.
pub(in crate::report) fn count(count: u64, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        // An entry, a series.
        _ if one.ends_with('y') => format!("{count} {}ies", &one[..one.len() - 1]),
        _ if one.ends_with('s') => format!("{count} {one}"),
        _ => format!("{count} {one}s"),
    }
}

/// `2026-11-21 19:24:15 UTC`, or the number where it is none that a clock shows.
pub(in crate::report) fn time(ms: i64) -> String {
    day_and_time(ms).map_or_else(|| format!("{ms} ms"), |(day, time)| format!("{day} {time} UTC"))
}

/// `2026-11-21 19:24:15 to 19:30:31 UTC`.
pub(in crate::report) fn span(from: i64, to: i64) -> String {
    match (day_and_time(from), day_and_time(to)) {
        (Some((day, first)), Some((other, last))) if day == other && first == last => {
            format!("{day} {first} UTC")
        }
        (Some((day, first)), Some((other, last))) if day == other => format!("{day} {first} to {last} UTC"),
        (Some((day, first)), Some((other, last))) => format!("{day} {first} to {other} {last} UTC"),
        _ => format!("{} to {}", time(from), time(to)),
    }
}

/// Day and time, in UTC, if the year has four digits and is not before 1970: any other time is a number gone wrong.
pub(in crate::report) fn day_and_time(ms: i64) -> Option<(String, String)> {
    let time = Offset::UTC.to_datetime(Timestamp::from_millisecond(ms).ok()?);
    (1970..=9999)
        .contains(&time.year())
        .then(|| (time.strftime("%Y-%m-%d").to_string(), time.strftime("%H:%M:%S").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(2, "entry"), "2 entries");
        assert_eq!(count(0, "series"), "0 series");
        assert_eq!(count(12_345, "sample"), "12345 samples");
    }

    #[test]
    fn spans() {
        // 2026-11-21 19:24:15 UTC.
        let at = 1_795_289_055_000;
        assert_eq!(span(at, at + 376_000), "2026-11-21 19:24:15 to 19:30:31 UTC");
        assert_eq!(span(at, at + 999), "2026-11-21 19:24:15 UTC");
        assert_eq!(span(at, at + 86_400_000), "2026-11-21 19:24:15 to 2026-11-22 19:24:15 UTC");
        assert_eq!(span(i64::MIN, at), "-9223372036854775808 ms to 2026-11-21 19:24:15 UTC");
    }
}
