//! Numbers for people: separated by thousands and always with their unit.

/// A count: `1,234,567`.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// Puts a comma before every third digit from the end.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of something: `1 thread`, `2 threads`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Three digits or so: `0.123`, `1.23`, `12.3`, `123`, `1,234`. What is no number is a dash.
pub(super) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let sign = if value < 0.0 { "-" } else { "" };
    let digits = match size {
        0.0 => return "0".to_owned(),
        _ if size >= 99.95 => return format!("{sign}{}", grouped(&format!("{size:.0}"))),
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{sign}{size:.digits$}")
}

/// A figure by steps of a thousand, with the unit of its step.
fn stepped(value: f64, units: &[&str]) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let mut value = value;
    let mut step = 0;
    while value.abs() >= 999.5 && step + 1 < units.len() {
        value /= 1_000.0;
        step += 1;
    }
    let unit = units[step];
    if step == 0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{} {unit}", figure(value))
    }
}

/// Bytes in powers of 1,000: `512 B`, `12.3 kB`.
pub(super) fn bytes(value: f64) -> String {
    stepped(value, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Bytes of one client: all digits below 100,000, since two brokers may differ by a few.
pub(super) fn bytes_each(value: f64) -> String {
    if value.abs() < 99_999.5 {
        let sign = if value <= -0.5 { "-" } else { "" };
        format!("{sign}{} B", count(value.abs().round() as u64))
    } else {
        bytes(value)
    }
}

/// A time given in milliseconds: `842 µs`, `12.3 ms`, `1.23 s`.
pub(super) fn time_ms(ms: f64) -> String {
    stepped(ms * 1_000.0, &["µs", "ms", "s"])
}

/// CPU time of one message, given in microseconds: `1.23 µs`.
pub(super) fn micros(value: f64) -> String {
    if value.abs() >= 999.5 {
        time_ms(value / 1_000.0)
    } else {
        format!("{} µs", figure(value))
    }
}

/// A span given in seconds: `0.812 s`, `30.0 s`.
pub(super) fn seconds(value: f64) -> String {
    format!("{} s", figure(value))
}

/// Events a second: `12,345/s`.
pub(super) fn rate(value: f64) -> String {
    format!("{}/s", figure(value))
}

/// A ratio to another run: `1.25×`.
pub(super) fn ratio(value: f64) -> String {
    format!("{}×", figure(value))
}

/// The last millisecond of the year 9999: what is later is shown as this.
const UTC_MS_MAX: u64 = 253_402_300_799_999;

/// A moment given in milliseconds since 1970: `2026-02-28 09:05:00 UTC`.
pub(super) fn utc(ms: u64) -> String {
    let seconds = ms.min(UTC_MS_MAX) / 1_000;
    let (mut day, of_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!(
        "{year}-{:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC",
        month + 1,
        day + 1
    )
}

/// Text from outside for a terminal: what would move its cursor or change its colours is shown as a mark.
pub(super) fn plain(text: &str) -> String {
    let mark = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(mark).collect()
}

/// The first `max` characters of a text.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let cases = [
            (count(0), "0"),
            (count(999), "999"),
            (count(1_000), "1,000"),
            (count(u64::MAX), "18,446,744,073,709,551,615"),
            (figure(0.0), "0"),
            (figure(0.0123), "0.012"),
            (figure(0.9996), "1.00"),
            (figure(9.996), "10.0"),
            (figure(99.96), "100"),
            (figure(1_234.5), "1,234"),
            (figure(-12_345.0), "-12,345"),
            (figure(f64::NAN), "–"),
            (bytes(0.0), "0 B"),
            (bytes(512.4), "512 B"),
            (bytes(999.6), "1.00 kB"),
            (bytes(5_100_000_000.0), "5.10 GB"),
            (bytes(-2_000.0), "-2.00 kB"),
            (bytes_each(1_783.2), "1,783 B"),
            (bytes_each(123_456.0), "123 kB"),
            (bytes_each(-64.4), "-64 B"),
            (time_ms(0.0421), "42 µs"),
            (time_ms(0.842), "842 µs"),
            (time_ms(12.34), "12.3 ms"),
            (time_ms(3_600_000.0), "3,600 s"),
            (micros(3.7), "3.70 µs"),
            (micros(1_446.0), "1.45 ms"),
            (seconds(0.8123), "0.812 s"),
            (rate(83_333.3), "83,333/s"),
            (rate(0.5), "0.500/s"),
            (ratio(1.0), "1.00×"),
            (ratio(f64::INFINITY), "–×"),
        ];
        for (shown, expected) in cases {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn moments_are_dates() {
        for (ms, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_772_269_500_000, "2026-02-28 09:05:00 UTC"),
            (1_735_689_599_000, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (u64::MAX, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(ms), expected);
        }
    }

    #[test]
    fn a_text_from_outside_cannot_take_over_the_terminal() {
        assert_eq!(
            plain("a\u{1b}[2Jb\nc\u{9b}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}"
        );
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("größer", 6), "größer");
    }
}
