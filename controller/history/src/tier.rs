//! The three resolutions in which history is kept. Pure.

/// Milliseconds of a second, as an `i64`.
const SECOND: i64 = 1000;

/// A resolution. Steps and blocks are numbered by the wall clock since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Means of ten seconds.
    Fine,
    /// Mean, minimum and maximum of a minute.
    Minute,
    /// Mean, minimum and maximum of a quarter of an hour, made from the minutes.
    Quarter,
}

impl Tier {
    /// All of them, from the finest.
    pub const ALL: [Self; 3] = [Self::Fine, Self::Minute, Self::Quarter];

    /// The length of a step, in seconds.
    pub const fn step_seconds(self) -> u32 {
        match self {
            Self::Fine => 10,
            Self::Minute => 60,
            Self::Quarter => 900,
        }
    }

    /// The length of a step, in milliseconds.
    pub fn step_milliseconds(self) -> i64 {
        i64::from(self.step_seconds()) * SECOND
    }

    /// How many steps a block holds: an hour, four hours, a day.
    pub const fn slots(self) -> usize {
        match self {
            Self::Fine => 360,
            Self::Minute => 240,
            Self::Quarter => 96,
        }
    }

    /// [`Tier::slots`], for arithmetic with step numbers.
    pub(crate) fn slots_signed(self) -> i64 {
        i64::try_from(self.slots()).unwrap_or(i64::MAX)
    }

    /// Whether a step has a minimum and a maximum beside its mean.
    pub const fn has_range(self) -> bool {
        !matches!(self, Self::Fine)
    }

    /// The step of a time in milliseconds since 1970.
    pub fn step_of(self, milliseconds: i64) -> i64 {
        milliseconds.div_euclid(self.step_milliseconds())
    }

    /// The block of a step.
    pub fn block_of(self, step: i64) -> i64 {
        step.div_euclid(self.slots_signed())
    }

    /// When a block begins, in milliseconds since 1970.
    pub fn block_start_milliseconds(self, block: i64) -> i64 {
        block * self.slots_signed() * self.step_milliseconds()
    }

    /// When the block of a time ends, in milliseconds since 1970.
    pub fn block_end_milliseconds(self, milliseconds: i64) -> i64 {
        self.block_start_milliseconds(self.block_of(self.step_of(milliseconds)) + 1)
    }

    /// Its name, for messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Minute => "minute",
            Self::Quarter => "quarter",
        }
    }

    /// Its number in the file.
    pub(crate) const fn number(self) -> i64 {
        self as i64
    }
}
