//! What a machine did in one step of a chart, in eight bytes: a fleet's memory holds hundreds of steps for everybody. Pure.
//!
//! A step is one number whose digits have different bases, as those of a time of day do: as many as a column has values that a picture can tell apart.

use pistat_protocol::stats::Sample;

/// The columns of a step.
pub(super) const COLUMNS: usize = 7;

/// The values of one step; `None` where nothing is known.
pub(super) type Columns = [Option<f32>; COLUMNS];

/// What a column's digit means. The value of each base that is not used up by the scale is for the unknown.
#[derive(Debug, Clone, Copy)]
enum Scale {
    /// Halves, from the first of these to the second.
    Halves(f32, f32),
    /// Bytes per second, up to 64 gigabytes: 22 values for each doubling, so that none is wrong by more than 1.6 %.
    Rate,
}

const SCALES: [Scale; COLUMNS] = [
    Scale::Halves(0.0, 100.0),
    Scale::Halves(0.0, 100.0),
    // Degrees: beyond what industrial chips are made for.
    Scale::Halves(-40.0, 130.0),
    Scale::Rate,
    Scale::Rate,
    Scale::Rate,
    Scale::Rate,
];

const RATES_PER_DOUBLING: f32 = 22.0;
const DOUBLINGS: f32 = 36.0;

/// Whether the voltage was too low: no, yes, or unknown.
const VOLTAGES: u64 = 3;

const _: () = {
    let (mut values, mut index) = (VOLTAGES, 0);
    while index < COLUMNS {
        assert!(values.checked_mul(SCALES[index].base()).is_some(), "a step has to fit in eight bytes");
        values *= SCALES[index].base();
        index += 1;
    }
};

impl Scale {
    /// The largest digit that is a value.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "constants, which are not negative")]
    const fn largest(self) -> u64 {
        match self {
            Self::Halves(from, to) => ((to - from) * 2.0) as u64,
            Self::Rate => (DOUBLINGS * RATES_PER_DOUBLING) as u64,
        }
    }

    /// How many digits there are, with the one for the unknown.
    const fn base(self) -> u64 {
        self.largest() + 2
    }

    /// What is beyond the scale is at its end; NaN is unknown.
    fn digit(self, value: Option<f32>) -> u64 {
        let Some(value) = value.filter(|value| !value.is_nan()) else {
            return self.largest() + 1;
        };
        let digit = match self {
            Self::Halves(from, _) => (value - from) * 2.0,
            Self::Rate => (1.0 + value.max(0.0)).log2() * RATES_PER_DOUBLING,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a conversion saturates")]
        let digit = digit.round() as u64;
        digit.min(self.largest())
    }

    fn value(self, digit: u64) -> Option<f32> {
        #[expect(clippy::cast_precision_loss, reason = "a digit is small")]
        let number = digit as f32;
        (digit <= self.largest()).then(|| match self {
            Self::Halves(from, _) => from + number / 2.0,
            Self::Rate => ((number / RATES_PER_DOUBLING).exp2() - 1.0).round(),
        })
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step(u64);

impl Step {
    /// Of these values, and whether the voltage was too low.
    pub(super) fn new(columns: &Columns, undervoltage: Option<bool>) -> Self {
        let voltage = undervoltage.map_or(VOLTAGES - 1, u64::from);
        let digits = SCALES.iter().zip(columns).map(|(scale, value)| (scale.base(), scale.digit(*value)));
        Self(digits.fold(voltage, |number, (base, digit)| number * base + digit))
    }

    /// Nothing is known of it.
    pub(super) fn unknown() -> Self {
        Self::new(&[None; COLUMNS], None)
    }

    /// Its values, and whether the voltage was too low.
    pub(super) fn get(self) -> (Columns, Option<bool>) {
        let mut rest = self.0;
        let mut columns = [None; COLUMNS];
        for (value, scale) in columns.iter_mut().zip(SCALES).rev() {
            *value = scale.value(rest % scale.base());
            rest /= scale.base();
        }
        (columns, (rest != VOLTAGES - 1).then_some(rest == 1))
    }
}

/// What of a sample is a column.
pub(super) fn columns(sample: &Sample) -> Columns {
    #[expect(clippy::cast_precision_loss, reason = "a rate in a chart needs two digits")]
    let rate = |bytes: Option<u64>| bytes.map(|bytes| bytes as f32);
    let columns = [
        sample.cpu_percent,
        sample.memory_percent,
        sample.temperature_celsius,
        rate(sample.disk_read_bytes_per_second),
        rate(sample.disk_write_bytes_per_second),
        rate(sample.network_rx_bytes_per_second),
        rate(sample.network_tx_bytes_per_second),
    ];
    columns.map(|value| value.filter(|value| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_what_a_chart_needs() {
        let halves = [0.0, 0.5, 12.5, 99.5, 100.0];
        let rates = [0.0, 1.0, 17.0, 512.0, 1_830.0, 65_000.0, 1_048_576.0, 125_000_000.0, 14_000_000_000.0];
        for (index, rate) in rates.into_iter().enumerate() {
            let percent = halves[index % halves.len()];
            let columns = [percent, 100.0 - percent, percent - 40.0, rate, 1.0, rate, 0.0].map(Some);
            for undervoltage in [None, Some(false), Some(true)] {
                let (kept, voltage) = Step::new(&columns, undervoltage).get();
                assert_eq!((&kept[..3], voltage), (&columns[..3], undervoltage));
                for (kept, value) in kept[3..].iter().zip(&columns[3..]) {
                    let (kept, value) = (kept.unwrap(), value.unwrap());
                    assert!((kept - value).abs() <= value * 0.016, "{value} became {kept}");
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_stays_unknown_whatever_is_beside_it() {
        assert_eq!(Step::unknown().get(), ([None; COLUMNS], None));
        for known in 0..COLUMNS {
            let mut columns = [None; COLUMNS];
            columns[known] = Some(100.0);
            let (kept, voltage) = Step::new(&columns, None).get();
            let there: Vec<usize> = (0..COLUMNS).filter(|index| kept[*index].is_some()).collect();
            assert_eq!((there, voltage), (vec![known], None));
        }
        assert_eq!(Step::new(&[Some(f32::NAN); COLUMNS], Some(true)).get(), ([None; COLUMNS], Some(true)));
    }

    #[test]
    fn what_was_read_is_written_as_the_same() {
        for scale in SCALES {
            for digit in 0..scale.base() {
                let value = scale.value(digit);
                assert_eq!(scale.value(scale.digit(value)), value, "{digit} of {scale:?}");
            }
        }
    }

    #[test]
    fn what_is_beyond_the_scale_is_at_its_end() {
        let far = |value: f32| Step::new(&[Some(value); COLUMNS], None).get().0.map(Option::unwrap);
        let most = f32::powi(2.0, 36);
        assert_eq!(format!("{:?}", far(f32::MAX)), format!("{:?}", [100.0, 100.0, 130.0, most, most, most, most]));
        assert_eq!(format!("{:?}", far(f32::MIN)), "[0.0, 0.0, -40.0, 0.0, 0.0, 0.0, 0.0]");
    }
}
