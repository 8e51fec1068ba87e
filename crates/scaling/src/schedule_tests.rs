use super::*;

/// Seconds since the epoch of a time as people write it.
fn at(text: &str) -> Moment {
    let timestamp: Timestamp = text.parse().unwrap();
    Moment::from_millis(timestamp.as_millisecond().try_into().unwrap())
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

fn schedule(cron: &str, zone: &str, duration: Duration, min: u32) -> Schedule {
    Schedule::parse(cron, zone, duration, min).unwrap()
}

#[test]
fn it_holds_from_its_time_on_for_its_duration() {
    let working = schedule("0 8 * * MON-FRI", "Europe/Berlin", hours(10), 20);
    #[track_caller]
    fn check(schedule: &Schedule, time: &str, expected: bool) {
        assert_eq!(schedule.holds(at(time)), expected, "{time}");
    }
    // A Monday in winter: an hour ahead of UTC.
    check(&working, "2026-01-12T06:59:59Z", false);
    check(&working, "2026-01-12T07:00:00Z", true);
    check(&working, "2026-01-12T16:59:59.999Z", true);
    check(&working, "2026-01-12T17:00:00Z", false);
    // In summer, two.
    check(&working, "2026-07-13T05:59:59Z", false);
    check(&working, "2026-07-13T06:00:00Z", true);
    // A Saturday.
    check(&working, "2026-01-10T09:00:00Z", false);
    // Over midnight, and longer than until the next time.
    let night = schedule("0 22 * * *", "UTC", hours(4), 3);
    check(&night, "2026-01-10T01:59:59Z", true);
    check(&night, "2026-01-10T02:00:00Z", false);
    let always = schedule("@hourly", "UTC", hours(2), 3);
    check(&always, "2026-01-10T01:59:59Z", true);
}

/// Where clocks change, a day's peak comes once.
#[test]
fn clocks_that_change_neither_lose_nor_double_a_peak() {
    // 02:30 does not exist in Berlin on 2026-03-29: the first time after it is 03:00, which is 01:00 UTC.
    let gap = schedule("30 2 * * *", "Europe/Berlin", hours(1), 5);
    assert!(!gap.holds(at("2026-03-29T00:59:59Z")));
    assert!(gap.holds(at("2026-03-29T01:00:00Z")));
    assert!(!gap.holds(at("2026-03-29T02:00:00Z")));
    // It exists twice on 2026-10-25, at 00:30 and at 01:30 UTC.
    assert!(!gap.holds(at("2026-10-25T00:29:59Z")));
    assert!(gap.holds(at("2026-10-25T00:30:00Z")));
    assert!(gap.holds(at("2026-10-25T01:29:59Z")));
    assert!(!gap.holds(at("2026-10-25T01:30:00Z")));
}

#[test]
fn the_floor_is_the_highest_of_those_that_hold_or_begin_in_time() {
    let schedules = [schedule("0 8 * * *", "UTC", hours(2), 20), schedule("0 9 * * *", "UTC", hours(4), 5)];
    #[track_caller]
    fn check(schedules: &[Schedule], time: &str, lead: u64, expected: u32) {
        assert_eq!(floor(schedules, at(time), Duration::from_secs(lead)), expected, "{time}");
    }
    check(&[], "2026-01-10T08:00:00Z", 60, 0);
    check(&schedules, "2026-01-10T07:58:59Z", 60, 0);
    check(&schedules, "2026-01-10T07:59:00Z", 60, 20);
    check(&schedules, "2026-01-10T07:59:00Z", 0, 0);
    check(&schedules, "2026-01-10T09:30:00Z", 60, 20);
    check(&schedules, "2026-01-10T10:00:00Z", 60, 5);
    check(&schedules, "2026-01-10T13:00:00Z", 60, 0);
}

#[test]
fn it_is_known_when_the_floor_changes() {
    let schedules = [schedule("0 8 * * *", "UTC", hours(2), 20), schedule("0 9 * * *", "UTC", hours(4), 5)];
    let minute = Duration::from_secs(60);
    let mut now = at("2026-01-10T00:00:00Z");
    for (change, floor_after) in [
        ("2026-01-10T07:59:00Z", 20),
        ("2026-01-10T08:59:00Z", 20),
        ("2026-01-10T10:00:00Z", 5),
        ("2026-01-10T13:00:00Z", 0),
        ("2026-01-11T07:59:00Z", 20),
    ] {
        now = next_change(&schedules, now, minute).unwrap();
        assert_eq!(now, at(change));
        assert_eq!(floor(&schedules, now, minute), floor_after, "{change}");
    }
    assert_eq!(next_change(&[], now, minute), None);
}

#[test]
fn what_is_no_schedule_says_why() {
    #[track_caller]
    fn check(cron: &str, zone: &str, seconds: u64, expected: &str) {
        let error = Schedule::parse(cron, zone, Duration::from_secs(seconds), 1).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let fields = |n: u32| format!("it has {n} fields, not five: minute, hour, day, month, weekday");
    check("", "UTC", 60, &format!("cron ``: {}", fields(0)));
    check("every day", "UTC", 60, &format!("cron `every day`: {}", fields(2)));
    check("0 0 8 * * *", "UTC", 60, &format!("cron `0 0 8 * * *`: {}", fields(6)));
    check("@dayly", "UTC", 60, "cron `@dayly`: it is no name that there is");
    let of = "or ranges, lists and steps of these";
    let minute = format!("cron `61 * * * *`: the minute `61` is none: it is *, or 0 to 59, {of}");
    check("61 * * * *", "UTC", 60, &minute);
    let weekday = format!("cron `0 8 * * mo-fr`: the weekday `mo-fr` is none: it is *, or 0 to 7 or sun to sat, {of}");
    check("0 8 * * mo-fr", "UTC", 60, &weekday);
    check("0 8 30 2 *", "UTC", 60, "cron `0 8 30 2 *` never happens");
    check("0 8 * * *", "Berlin", 60, "time zone `Berlin` is not in the IANA time zone database");
    check("0 8 * * *", "", 60, "time zone ``");
    check("0 8 * * *", "UTC", 0, "a schedule lasts from 1 s to 31 days, not 0 s");
    check("0 8 * * *", "UTC", 2_678_401, "a schedule lasts from 1 s to 31 days, not 2678401 s");
    assert!(Schedule::parse("0 8 29 2 *", "europe/berlin", MAX_DURATION, 1).is_ok());
}

/// What never comes is found out at once: it used to take a second for each such schedule, at each look at its service.
#[test]
fn what_never_comes_is_not_looked_for_for_long() {
    let begun = std::time::Instant::now();
    for cron in ["0 0 31 2,4,6,9,11 *", "0 8 30 2 *", "59 23 30,31 2 *"] {
        let found = Schedule::parse(cron, "UTC", hours(1), 1).map(drop);
        assert_eq!(found, Err(NoSchedule::Never(cron.to_owned())));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for cron in ["0 0 29 2 *", "0 0 31 12 *", "*/7 3-5 L * *", "0 0 * * MON#5", "59 23 1 1 *"] {
        assert!(Schedule::parse(cron, "Asia/Tokyo", hours(1), 1).is_ok(), "{cron}");
    }
}

/// Before the epoch's first day and after the last one that can be told there is no schedule, and no panic.
#[test]
fn any_moment_can_be_asked_about() {
    let daily = [schedule("0 8 * * *", "UTC", hours(2), 20)];
    for moment in [Moment::default(), Moment::from_millis(1), Moment::from_millis(u64::MAX)] {
        let _ = floor(&daily, moment, Duration::MAX);
        let _ = next_change(&daily, moment, Duration::MAX);
    }
}
