//! Durations as operators write them in Kubernetes objects: `30s`, `1m30s`, `500ms`, `2h`.
//!
//! For serde: `#[serde(with = "streamfleet_process::config::duration")]`, and `…::duration::optional` for
//! `Option<Duration>`. A bare number is refused: nobody should have to guess its unit. Resolution: one millisecond.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Milliseconds per unit, largest first, which is also the order in which the units may appear.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// The text is empty or has another form.
    #[error("{0:?} is not a duration such as \"30s\", \"1m30s\" or \"500ms\"")]
    Form(String),
    /// More than 2^64 milliseconds.
    #[error("{0:?} is too long a duration")]
    TooLong(String),
}

/// Reads `1h2m3s4ms` and any part of it in that order; `0` needs no unit.
///
/// # Errors
/// If the text has another form, or the sum does not fit.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let form = || InvalidDuration::Form(text.chars().take(64).collect());
    let too_long = || InvalidDuration::TooLong(text.chars().take(64).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut units = &UNITS[..];
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(form());
        }
        let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(form)?;
        let count: u64 = number.parse().map_err(|_| too_long())?;
        total = count.checked_mul(units[at].1).and_then(|ms| total.checked_add(ms)).ok_or_else(too_long)?;
        units = &units[at + 1..];
        rest = after;
    }
    if text.is_empty() { Err(form()) } else { Ok(Duration::from_millis(total)) }
}

/// The shortest text that [`parse`] reads back: `90s` is written `1m30s`. Fractions of a millisecond are dropped.
pub fn format(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, milliseconds) in UNITS {
        let count = left / milliseconds;
        left %= milliseconds;
        if count > 0 {
            write!(text, "{count}{unit}").expect("invariant: writing to a String cannot fail");
        }
    }
    text
}

/// For `#[serde(with)]`.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with)]`.
///
/// # Errors
/// If the value is not a text, or the text is no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for `Option<Duration>`: `null` is `None`.
pub mod optional {
    use super::{Deserializer, Duration, Serializer, parse};
    use serde::{Deserialize as _, de::Error as _};

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with)]`; combine with `#[serde(default)]`.
    ///
    /// # Errors
    /// If the value is neither null nor a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| parse(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let ms = Duration::from_millis;
        let check = |text: &str, expected: Option<Duration>| assert_eq!(parse(text).ok(), expected, "{text:?}");
        check("30s", Some(ms(30_000)));
        check("1m30s", Some(ms(90_000)));
        check("500ms", Some(ms(500)));
        check("2h", Some(ms(7_200_000)));
        check("1h1m1s1ms", Some(ms(3_661_001)));
        check("0", Some(ms(0)));
        check("0s", Some(ms(0)));
        check("", None);
        check("30", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("1s1m", None);
        check("1s1s", None);
        check("1 s", None);
        check("1d", None);
        check("99999999999999999999s", None);
        check("18446744073709551615h", None);
        check("é1s", None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in 0..u64::MAX) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
