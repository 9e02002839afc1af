//! When a task runs by itself: five fields of crontab(5) in a time zone.
//!
//! Pure: it is asked for the next moment after another, and knows no clock.

use pistat_protocol::time::Timestamp;

/// A schedule, such as `0 3 * * *` in `Europe/Berlin`.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: croner::Cron,
    zone: jiff::tz::TimeZone,
    text: String,
}

impl Schedule {
    /// Reads five fields of crontab(5) and the name of a time zone; without one it is the system's.
    ///
    /// # Errors
    /// A sentence that says what is wrong with either.
    pub fn parse(_expression: &str, _zone: Option<&str>) -> Result<Self, String> {
        todo!()
    }

    /// The first moment after `time` at which it fires; `None` when there is none in the years to come.
    pub fn next_after(&self, _time: Timestamp) -> Option<Timestamp> {
        let _ = (&self.cron, &self.zone);
        todo!()
    }

    /// As people read it: the five fields and the zone.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
