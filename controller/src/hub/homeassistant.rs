//! What Home Assistant is told, and its birth: the announcer's plans, carried out.

use std::time::Duration;

use bytes::Bytes;
use pistat_protocol::{
    account::Role,
    codec::encode,
    id::PiId,
    status::{Availability, Watch},
    task::Arguments,
    topic::Topic,
};
use pistat_support::random;

use super::{Hub, PendingCommit};
use crate::{
    bridge::Outgoing,
    catalogue::{Ask, Catalogue, MachineFacts},
    config::{Broker, Config},
    fleet::Fleet,
    homeassistant::{Announced, Announcer, Button, Facts, Place, Plan, Say},
    store::{Durability, Write},
};

/// Home Assistant says it of itself when it was started.
const BIRTH: &[u8] = b"online";

/// The answer to a birth waits this long at least, and at most twice as long.
const BIRTH_PAUSE: Duration = Duration::from_millis(500);

/// So long a machine samples every second after Home Assistant was started: long enough for one
/// sample.
const SAMPLE_SECONDS: u32 = 2;

/// The announcer of this configuration, with what an earlier one announced.
pub(super) fn announcer(config: &Config, announced: Announced) -> Announcer {
    let place = Place {
        topics: config.mqtt.topics.clone(),
        prefix: config.homeassistant.prefix.clone(),
        dashboard: config.http.public_url.clone(),
    };
    Announcer::new(config.homeassistant.discovery.then_some(place), announced)
}

impl Hub {
    /// Home Assistant said something of itself. A retained word is old: whatever is announced was
    /// just said anyway.
    pub(super) fn homeassistant_said(&mut self, payload: &Bytes, retain: bool) {
        if payload.as_ref() == BIRTH && !retain {
            // Without randomness it is only less spread out.
            let pause = BIRTH_PAUSE + BIRTH_PAUSE.mul_f64(f64::from(random::byte()) / 255.0);
            self.announcer.born(self.now.monotonic, pause);
        }
    }

    /// Once a second: what has changed is announced.
    pub(super) fn announce_to_homeassistant(&mut self) {
        let Self { announcer, fleet, catalogue, config, now, .. } = self;
        let Plan { keep, say } = announcer.turn(now.monotonic, fleet.ids(), |pi| facts(fleet, catalogue, config, pi));
        match keep {
            Some(announced) => {
                self.commits.store(Durability::Required, Write::Announced(announced), PendingCommit::Announced(say));
            }
            None => self.say_to_homeassistant(say),
        }
    }

    /// What may be said is on the disk.
    pub(super) fn announced(&mut self, say: Vec<Say>) {
        self.announcer.stored();
        self.say_to_homeassistant(say);
    }

    /// Documents first, then availability, then state. Everybody's availability and state are
    /// retained and have one writer each, so what is told anew after a birth is the controller's
    /// own word, and each machine is asked for a sample.
    fn say_to_homeassistant(&mut self, say: Vec<Say>) {
        let mut again = Vec::new();
        for Say { topic, payload, again: pi } in say {
            self.send(Outgoing { topic, payload, qos: 1, retain: true, correlation: None });
            again.extend(pi);
        }
        if again.is_empty() {
            return;
        }
        let online = Availability::Online.as_str().into();
        self.publish(&Topic::Status(PiId::controller()), online, 1, true);
        for pi in again {
            self.publish(&Topic::Watch(pi), encode(&Watch { seconds: SAMPLE_SECONDS }), 0, false);
        }
    }
}

fn facts<'f>(fleet: &'f Fleet, catalogue: &Catalogue, config: &Config, pi: &PiId) -> Option<Facts<'f>> {
    let info = fleet.machine_info(pi)?;
    Some(Facts { label: fleet.label(pi), info, buttons: buttons(catalogue, config, &fleet.facts(pi)) })
}

/// The tasks that the catalogue would approve if Home Assistant asked for them without arguments:
/// with an operator's account, or as an external broker's users may.
fn buttons(catalogue: &Catalogue, config: &Config, machine: &MachineFacts<'_>) -> Vec<Button> {
    let requests = config.mqtt.requests.as_ref();
    let external = config.mqtt.broker != Broker::Embedded;
    let role = if external { requests.map(|requests| requests.role) } else { Some(Role::Operator) };
    let Some(role) = role else { return Vec::new() };
    let asked = |task: &pistat_protocol::id::TaskId| {
        !external || requests.is_some_and(|requests| requests.tasks.contains(task))
    };
    let approved = |task: &pistat_protocol::id::TaskId| {
        let ask = Ask { task, args: &Arguments::new(), role: Some(role), machine: *machine, is_machine: &|_| false };
        catalogue.check(&ask).is_ok()
    };
    let tasks = catalogue.tasks().map(crate::catalogue::Task::view);
    let tasks = tasks.filter(|task| asked(&task.id) && approved(&task.id));
    tasks.map(|task| Button { task: task.id.clone(), label: task.label.clone(), ends: task.ends }).collect()
}
