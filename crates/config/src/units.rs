//! Durations (`"500ms"`, `"1m30s"`) and sizes (`"64KiB"`): read, and written back in the form in which they are read.
use std::time::Duration;

/// In descending order, in microseconds.
const DURATIONS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
/// In descending order, in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Numbers with units, added up: `"1m30s"`.
///
/// # Errors
/// What is wrong with `text`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut us = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("is empty".into());
    }
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let factor = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, us)| *us);
        let factor = factor.ok_or_else(|| unknown_unit(unit, "d, h, m, s, ms and us"))?;
        us = number.checked_mul(factor).and_then(|n| us.checked_add(n)).ok_or("is too large")?;
        rest = after;
    }
    Ok(Duration::from_micros(us))
}

/// One number with a unit, or without one for bytes. The error says what is wrong with `text`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| "is too large".into());
    }
    let (number, unit, after) = number_and_unit(text)?;
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let factor = factor.ok_or_else(|| unknown_unit(unit, "B, KiB, MiB and GiB"))?;
    if !after.is_empty() {
        return Err(format!("has \"{after}\" after the unit"));
    }
    number.checked_mul(factor).ok_or_else(|| "is too large".into())
}

/// The duration in the fewest units: `1m30s`, `250ms`.
pub(crate) fn show_duration(d: Duration) -> String {
    let mut us = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATIONS {
        if us >= factor {
            text += &format!("{}{unit}", us / factor);
            us %= factor;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// The size in the largest unit that divides it: `64KiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZES.into_iter().find(|(_, f)| bytes % f == 0 && bytes >= *f).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("has no number before \"{rest}\""));
    }
    if rest.starts_with(['.', ',']) {
        return Err("has a fraction: use a smaller unit".into());
    }
    let rest = rest.trim_start_matches(' ');
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, after) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(format!("has no unit after {number}"));
    }
    let number = number.parse().map_err(|_| "is too large")?;
    Ok((number, unit, after.trim_start_matches(' ')))
}

fn unknown_unit(unit: &str, known: &str) -> String {
    format!("has the unknown unit \"{unit}\" (there are {known})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration(" 250 ms "), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_duration_that_is_no_duration_says_why() {
        for (text, why) in [
            ("", "is empty"),
            ("3", "has no unit after 3"),
            ("1.5s", "has a fraction: use a smaller unit"),
            ("s", "has no number before \"s\""),
            ("3 weeks", "has the unknown unit \"weeks\" (there are d, h, m, s, ms and us)"),
            ("99999999999999999999s", "is too large"),
            ("300000000d", "is too large"),
            ("-1s", "has no number before \"-1s\""),
        ] {
            assert_eq!(parse_duration(text), Err(why.into()), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two_and_plain_numbers_are_bytes() {
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_size("100"), Ok(100));
        assert_eq!(
            parse_size("1MB"),
            Err("has the unknown unit \"MB\" (there are B, KiB, MiB and GiB)".into())
        );
        assert_eq!(parse_size("1MiB 1"), Err("has \"1\" after the unit".into()));
        assert_eq!(parse_size("99999999999GiB"), Err("is too large".into()));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(n in 0..u64::MAX / 4) {
            prop_assert_eq!(parse_size(&show_size(n)), Ok(n));
            let d = Duration::from_micros(n);
            prop_assert_eq!(parse_duration(&show_duration(d)), Ok(d));
        }

        #[test]
        fn no_text_makes_a_unit_panic(text in "\\PC{0,12}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
