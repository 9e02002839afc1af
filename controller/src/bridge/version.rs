//! Which version of MQTT the next connection speaks. Pure.
//!
//! A broker that knows MQTT 3.1.1 only should say so, and often it just closes the connection. That
//! alone proves nothing (it may be restarting), so 3.1.1 is tried then, and believed only if MQTT 5
//! is closed once more right after 3.1.1 was let in. A connection that has been lost begins anew
//! with MQTT 5: the broker may be another one by now.

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Five,
    Four,
}

/// What is known about the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Versions {
    /// Nothing against MQTT 5.
    #[default]
    Five,
    /// It closed a connection of MQTT 5: whether it lets 3.1.1 in is tried, and no more.
    Trial,
    /// It let 3.1.1 in: MQTT 5 has its last chance.
    Again,
    /// It has no MQTT 5.
    Four,
}

impl Versions {
    /// What the next connection speaks.
    pub(super) fn next(self) -> Version {
        match self {
            Self::Five | Self::Again => Version::Five,
            Self::Trial | Self::Four => Version::Four,
        }
    }

    /// Whether the next connection only asks whether it would be let in.
    pub(super) fn is_trial(self) -> bool {
        self == Self::Trial
    }

    /// The broker let a connection in.
    pub(super) fn accepted(&mut self) {
        *self = match *self {
            Self::Five | Self::Again => Self::Five,
            Self::Trial => Self::Again,
            Self::Four => Self::Four,
        };
    }

    /// The broker said that it does not know the version. Returns whether another is worth a try.
    pub(super) fn refused(&mut self) -> bool {
        let before = self.next();
        *self = if before == Version::Five { Self::Four } else { Self::Five };
        before == Version::Five
    }

    /// The broker closed a connection without having let it in.
    pub(super) fn closed(&mut self) {
        *self = match *self {
            Self::Five => Self::Trial,
            Self::Again => Self::Four,
            Self::Trial | Self::Four => Self::Five,
        };
    }

    /// Any other end, of a connection or of an attempt.
    pub(super) fn ended(&mut self) {
        *self = Self::Five;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_refuses_the_version_is_spoken_to_in_the_older_one() {
        let mut versions = Versions::default();
        assert!(versions.refused() && versions.next() == Version::Four && !versions.is_trial());
        versions.accepted();
        assert_eq!(versions.next(), Version::Four);
        versions.ended();
        assert_eq!(versions.next(), Version::Five);
        // One that knows neither is not a reason to hurry.
        assert!(versions.refused() && !versions.refused());
    }

    #[test]
    fn a_broker_that_closes_is_believed_to_be_old_only_when_it_closes_again_after_it_let_the_old_version_in() {
        let mut versions = Versions::default();
        versions.closed();
        assert!(versions.is_trial());
        versions.accepted();
        assert_eq!((versions.next(), versions.is_trial()), (Version::Five, false));
        versions.closed();
        assert_eq!(versions, Versions::Four);
        // One that was only restarting speaks MQTT 5 in the end, whenever it comes back.
        for closes in 0..6 {
            let mut versions = Versions::default();
            (0..closes).for_each(|_| versions.closed());
            for _ in 0..3 {
                versions.accepted();
            }
            assert_eq!(versions, Versions::Five, "{closes}");
        }
    }
}
