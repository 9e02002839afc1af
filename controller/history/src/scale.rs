//! How exactly a series is kept. A chart needs two digits; more would be stored noise. Pure.

/// Kept values of each doubling of a rate, so that none is wrong by more than 1.6 %.
const PER_DOUBLING: f64 = 22.0;

/// The largest kept number in either direction: differences of two still fit in an `i32`.
const LIMIT: f64 = 1_000_000_000.0;

/// The distance between values that are kept apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Equal steps of this size.
    Linear(f64),
    /// Logarithmic, from zero up, within 1.6 %.
    Rate,
}

impl Scale {
    /// The nearest kept number; nothing for what is not a finite number.
    pub fn quantise(self, value: f64) -> Option<i32> {
        let number = match self {
            Self::Linear(step) => value / step,
            Self::Rate => (1.0 + value.max(0.0)).log2() * PER_DOUBLING,
        };
        #[expect(clippy::cast_possible_truncation, reason = "clamped")]
        let number = (value.is_finite() && number.is_finite()).then(|| number.round().clamp(-LIMIT, LIMIT) as i32);
        number
    }

    /// The value of a kept number.
    pub fn value(self, number: i32) -> f64 {
        match self {
            Self::Linear(step) => f64::from(number) * step,
            Self::Rate => (f64::from(number) / PER_DOUBLING).exp2() - 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_as_exact_as_promised() {
        for value in [0.0, 0.4, 12.3, 99.9, 100.0] {
            let kept = Scale::Linear(0.5).value(Scale::Linear(0.5).quantise(value).unwrap());
            assert!((kept - value).abs() <= 0.25, "{value} became {kept}");
        }
        for value in [0.0, 1.0, 17.0, 1_830.0, 125_000_000.0, 1.4e13] {
            let kept = Scale::Rate.value(Scale::Rate.quantise(value).unwrap());
            assert!((kept - value).abs() <= value * 0.016, "{value} became {kept}");
        }
    }

    #[test]
    fn what_was_read_is_written_as_the_same() {
        for scale in [Scale::Linear(0.5), Scale::Linear(0.05), Scale::Linear(4_194_304.0), Scale::Rate] {
            for number in 40..1_400 {
                assert_eq!(scale.quantise(scale.value(number)), Some(number), "{scale:?}");
            }
        }
    }

    #[test]
    fn what_is_no_finite_number_is_unknown_and_what_is_too_large_is_bounded() {
        for scale in [Scale::Linear(0.5), Scale::Rate] {
            assert_eq!([f64::NAN, f64::INFINITY].map(|value| scale.quantise(value)), [None, None]);
        }
        assert_eq!(Scale::Linear(0.5).quantise(1e300), Some(1_000_000_000));
        assert_eq!(Scale::Rate.quantise(-5.0), Some(0));
    }
}
