//! Hours of the week, as windows of the throttle and rules of the policy name them (pure).

use jiff::Zoned;
use jiff::civil::Weekday;

/// Minutes of a day; also what 24:00 is.
const DAY_MINUTES: u16 = 24 * 60;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The same hours of some days of each week (THR). Where `from` is later than `to`, it goes over
/// midnight and belongs to the day on which it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes since midnight.
    from: u16,
    /// Minutes since midnight, up to 1,440.
    to: u16,
}

impl Calendar {
    /// Of the values of the attributes `days`, `from`, `to`; `None` when one cannot be read.
    pub fn parse(days: &str, from: &str, to: &str) -> Option<Calendar> {
        let (days, from, to) = (parse_days(days)?, parse_clock(from)?, parse_clock(to)?);
        Some(Calendar { days, from, to })
    }

    /// Whether it is open at a minute (0 to 1,439) of a day of the week.
    pub fn is_open(&self, day: Weekday, minute: u16) -> bool {
        let today = usize::from(day.to_monday_zero_offset().unsigned_abs());
        let on = |day: usize| self.days & (1 << (day % 7)) != 0;
        if self.from < self.to {
            return on(today) && (self.from..self.to).contains(&minute);
        }
        (on(today) && minute >= self.from) || (on(today + 6) && minute < self.to)
    }

    /// Whether it is open at a moment, by the clock of the moment's own zone.
    pub fn is_open_at(&self, moment: &Zoned) -> bool {
        let of_hour = u16::from(moment.minute().unsigned_abs());
        self.is_open(moment.weekday(), u16::from(moment.hour().unsigned_abs()) * 60 + of_hour)
    }
}

/// Days as a set of bits, Monday the lowest; `sat-mon` goes over the end of the week.
pub(crate) fn parse_days(text: &str) -> Option<u8> {
    let mut days = 0;
    for part in text.split(' ') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let mut day = position(first)?;
        let last = position(last)?;
        days |= 1 << day;
        while day != last {
            day = (day + 1) % 7;
            days |= 1 << day;
        }
    }
    Some(days)
}

fn position(day: &str) -> Option<usize> {
    DAYS.iter().position(|known| *known == day)
}

/// Minutes since midnight of HH:MM, 00:00 to 24:00.
pub(crate) fn parse_clock(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str| -> Option<u16> {
        let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse().ok())?
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let whole = hour * 60 + minute;
    (minute < 60 && whole <= DAY_MINUTES).then_some(whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_go_over_the_end_of_the_week() {
        assert_eq!(parse_days("mon-sun"), Some(0b111_1111));
        assert_eq!(parse_days("sat-mon wed"), Some(0b110_0101));
        for bad in ["", "mon,tue", "mon  tue", "Mon", "mon-", "mon-tue-wed"] {
            assert_eq!(parse_days(bad), None, "{bad}");
        }
    }

    #[test]
    fn clocks_have_two_digits_each() {
        assert_eq!((parse_clock("24:00"), parse_clock("08:30")), (Some(1_440), Some(510)));
        for bad in ["8:00", "24:01", "12:60", "+1:00", "12", ""] {
            assert_eq!(parse_clock(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        let night = Calendar::parse("fri", "22:00", "06:00").unwrap();
        assert!(night.is_open(Weekday::Friday, 1_320));
        assert!(night.is_open(Weekday::Saturday, 359));
        assert!(!night.is_open(Weekday::Saturday, 360));
        assert!(!night.is_open(Weekday::Friday, 100));
        let sunday = Calendar::parse("sun", "23:00", "01:00").unwrap();
        assert!(sunday.is_open(Weekday::Monday, 30));
    }

    #[test]
    fn a_window_is_open_by_the_clock_of_its_zone() {
        let office = Calendar::parse("mon-fri", "08:00", "18:00").unwrap();
        let moment: Zoned = "2026-11-23T08:00[Europe/Berlin]".parse().unwrap();
        assert!(office.is_open_at(&moment));
        assert!(!office.is_open_at(&moment.with_time_zone(jiff::tz::TimeZone::UTC)));
    }
}
