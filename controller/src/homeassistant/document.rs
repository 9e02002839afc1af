//! One machine's discovery document.
//!
//! Rules of Home Assistant that are kept here: a component without `unique_id`, or one of an
//! unknown platform, makes the whole document be dropped; so does a device without identifiers or
//! an origin without a name. Names are short, since Home Assistant puts the device's in front. The
//! whole device is available while both the controller and its agent are; what must be told of a
//! machine that is away asks for the controller only.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use pistat_protocol::{
    id::{PiId, TaskId},
    order::{hex, sha256},
    status::Info,
    task::{Ends, RunState},
    topic::{Topic, Topics},
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::config::HomeAssistant;

use super::{
    known::{Known, told_by},
    sensors::{Entity, OF_INFO, OF_SAMPLES, Platform},
};

/// What has been announced: the components of each document, by its topic. What the state folder
/// keeps.
pub(crate) type Announced = BTreeMap<String, Shared>;

/// The components of one or many documents: most machines of a fleet have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "Components")]
pub(crate) struct Shared(Arc<Components>);

impl Shared {
    /// Whether another document has them too.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl From<Components> for Shared {
    fn from(components: Components) -> Self {
        Self(Arc::new(components))
    }
}

impl Serialize for Shared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Deref for Shared {
    type Target = Components;

    fn deref(&self) -> &Components {
        &self.0
    }
}

/// The components of a document, by their keys.
pub(crate) type Components = BTreeMap<String, Component>;

/// What was announced under a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Component {
    /// What its key says.
    Of(Platform),
    /// A file system. Several names may make one key, so whose it is has to be kept: another must
    /// not go on with its history.
    Disk {
        /// The mount point.
        disk: String,
    },
}

impl Component {
    pub(super) fn platform(&self) -> Platform {
        match self {
            Self::Of(platform) => *platform,
            Self::Disk { .. } => Platform::Sensor,
        }
    }
}

/// After how many intervals without a sample a value is unavailable, should nobody have said that
/// the machine is gone.
const EXPIRE_INTERVALS: f64 = 3.0;

/// The key of the event that tells how runs ended.
const TASK_RESULT: &str = "task_result";

/// Where documents go and what they refer to.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The fleet's topics.
    pub(crate) topics: Topics,
    /// Home Assistant's discovery prefix.
    pub(crate) prefix: String,
    /// The dashboard's address, where it is known.
    pub(crate) dashboard: Option<String>,
}

/// What is known of a machine, besides its abilities.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    /// The label in force.
    pub(crate) label: String,
    /// What it is.
    pub(crate) info: &'a Info,
    /// The tasks that run there without arguments.
    pub(crate) buttons: Vec<Button>,
}

/// A task as a button.
#[derive(Debug, Clone)]
pub(crate) struct Button {
    /// What is asked for.
    pub(crate) task: TaskId,
    /// Its name.
    pub(crate) label: String,
    /// What its success looks like.
    pub(crate) ends: Ends,
}

/// The topics on which Home Assistant says that it was started or stops; none when nothing is
/// announced to it.
pub(crate) fn birth_topics(config: &HomeAssistant) -> Vec<String> {
    if config.discovery { pistat_broker::births(&config.prefix) } else { Vec::new() }
}

impl Place {
    /// Of ids and of the document's topic: machines of another prefix on the same broker are other
    /// machines. Home Assistant takes only `[a-zA-Z0-9_-]`.
    fn device(&self, pi: &PiId) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let prefix = self.topics.prefix();
        let stem: String = prefix.chars().map(plain).collect();
        // What `_` stands for would be lost: `home/pi` and `home_pi` are two prefixes, and a pi-id
        // may have one too.
        if stem.contains('_') {
            return format!("{stem}_{}_{pi}", &hex(&sha256(prefix.as_bytes()))[..8]);
        }
        format!("{stem}_{pi}")
    }

    /// The topic of a machine's document.
    pub(crate) fn topic(&self, pi: &PiId) -> String {
        format!("{}/device/{}/config", self.prefix, self.device(pi))
    }

    /// A machine's components, by their keys. What `info` had once told is still announced when it
    /// was before.
    pub(super) fn components(
        &self,
        pi: &PiId,
        facts: &Facts<'_>,
        known: &Known,
        announced: Option<&Components>,
    ) -> BTreeMap<String, (Component, Value)> {
        let machine = Machine { place: self, pi, device: self.device(pi), facts };
        let mut components = BTreeMap::new();
        let of = Component::Of;
        let was = |key: &str| announced.is_some_and(|announced| announced.contains_key(key));
        for entity in known.entities() {
            components.insert(entity.key.to_owned(), (of(entity.platform), machine.of_sample(entity)));
        }
        for entity in OF_INFO.iter().filter(|entity| told_by(facts.info, entity.key, was(entity.key))) {
            components.insert(entity.key.to_owned(), (of(entity.platform), machine.of_info(entity)));
        }
        for mount in known.mounts() {
            let key = disk_key(mount, pi, announced, |key| components.contains_key(key));
            let value = machine.disk(mount, &key);
            components.insert(key, (Component::Disk { disk: mount.to_owned() }, value));
        }
        for button in &facts.buttons {
            let (key, value) = machine.button(button);
            components.insert(key, (of(Platform::Button), value));
        }
        components.insert("online".to_owned(), (of(Platform::BinarySensor), machine.online()));
        components.insert(TASK_RESULT.to_owned(), (of(Platform::Event), machine.task_result()));
        components
    }

    /// The document's text.
    pub(super) fn text(&self, pi: &PiId, facts: &Facts<'_>, components: &Map<String, Value>) -> Vec<u8> {
        let machine = Machine { place: self, pi, device: self.device(pi), facts };
        let document = json!({
            "dev": machine.device(),
            "o": {"name": "pistat", "sw": env!("CARGO_PKG_VERSION")},
            "availability": machine.availability(),
            "availability_mode": "all",
            "state_topic": machine.own(Topic::Stats),
            "qos": 1,
            "cmps": components,
        });
        document.to_string().into_bytes()
    }
}

/// What the text of a component that is gone is: Home Assistant removes it, and the next document
/// leaves it out.
pub(super) fn gone(platform: Platform) -> Value {
    json!({"p": platform.as_str()})
}

struct Machine<'a> {
    place: &'a Place,
    pi: &'a PiId,
    device: String,
    facts: &'a Facts<'a>,
}

impl Machine<'_> {
    fn own(&self, topic: impl FnOnce(PiId) -> Topic) -> String {
        self.place.topics.format(&topic(self.pi.clone()))
    }

    fn device(&self) -> Value {
        let info = self.facts.info;
        let mut device = json!({
            "ids": [self.device],
            "name": self.facts.label,
            "sw": format!("pistat-agent {}", info.agent_version),
        });
        let manufacturer = info.model.as_ref().filter(|model| model.starts_with("Raspberry Pi"));
        let given = [
            ("mf", manufacturer.map(|_| "Raspberry Pi Ltd".to_owned())),
            ("mdl", info.model.clone()),
            ("sn", info.serial.clone()),
            ("cu", self.place.dashboard.as_ref().map(|url| format!("{url}/#/pi/{}", self.pi))),
            ("via_device", (!self.pi.is_controller()).then(|| self.place.device(&PiId::controller()))),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                device[name] = value.into();
            }
        }
        device
    }

    fn controller_status(&self) -> String {
        self.place.topics.format(&Topic::Status(PiId::controller()))
    }

    /// Both the controller and the machine's agent; on the controller's own machine they are one.
    fn availability(&self) -> Value {
        let controller = json!({"topic": self.controller_status()});
        if self.pi.is_controller() {
            json!([controller])
        } else {
            json!([controller, {"topic": self.own(Topic::Status)}])
        }
    }

    /// What every component has.
    fn component(&self, platform: Platform, key: &str, name: &str) -> Value {
        json!({
            "p": platform.as_str(),
            "name": name,
            "unique_id": format!("{}_{key}", self.device),
            "default_entity_id": self.entity_id(platform, name, key),
        })
    }

    /// A name of the machine and one of the component: neither is left out because it has no
    /// letters that an entity id may have.
    fn entity_id(&self, platform: Platform, name: &str, key: &str) -> String {
        format!("{}.{}_{}", platform.as_str(), slug(&self.facts.label, self.pi.as_str()), slug(name, key))
    }

    fn entity<T>(&self, entity: &Entity<T>) -> Value {
        let mut value = self.component(entity.platform, entity.key, entity.name);
        value["value_template"] = entity.template().into();
        let texts = [("unit_of_measurement", entity.unit), ("device_class", entity.class), ("icon", entity.icon)];
        for (name, text) in texts {
            if let Some(text) = text {
                value[name] = text.into();
            }
        }
        if let Some(precision) = entity.precision {
            value["state_class"] = "measurement".into();
            value["suggested_display_precision"] = precision.into();
        }
        if entity.diagnostic {
            value["entity_category"] = "diagnostic".into();
        }
        if entity.hidden {
            value["enabled_by_default"] = false.into();
        }
        value
    }

    fn of_sample(&self, entity: &Entity<pistat_protocol::stats::Sample>) -> Value {
        let mut value = self.entity(entity);
        value["expire_after"] = self.expire_after().into();
        value
    }

    fn of_info(&self, entity: &Entity<Info>) -> Value {
        let mut value = self.entity(entity);
        value["state_topic"] = self.own(Topic::Info).into();
        value
    }

    /// Whole seconds, as Home Assistant takes them.
    fn expire_after(&self) -> u64 {
        let longest = *pistat_protocol::status::INTERVAL_SECONDS.end();
        let interval = self.facts.info.interval_seconds;
        let interval = if interval.is_finite() { interval.clamp(0.0, longest) } else { longest };
        let expire = std::time::Duration::from_secs_f64(interval * EXPIRE_INTERVALS);
        (expire.as_secs() + u64::from(expire.subsec_nanos() > 0)).max(1)
    }

    fn disk(&self, mount: &str, key: &str) -> Value {
        let name = if mount == "/" { "Disk".to_owned() } else { format!("Disk {mount}") };
        let mut value = self.component(Platform::Sensor, key, &name);
        value["default_entity_id"] = self.entity_id(Platform::Sensor, key, key).into();
        // A text in JSON is one in a template, too.
        let text = Value::from(mount).to_string();
        let options = json!({
            "value_template": format!(
                "{{{{ value_json.disks | default([]) | selectattr('mount', 'eq', {text}) | map(attribute='used_percent') | first | default('None') }}}}"
            ),
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "suggested_display_precision": 0,
            "expire_after": self.expire_after(),
            "icon": "mdi:harddisk",
        });
        add(&mut value, options);
        value
    }

    fn button(&self, button: &Button) -> (String, Value) {
        let mut key = format!("task_{}", button.task.as_str().replace('-', "_"));
        if key == TASK_RESULT {
            // No id of a task begins with a dash, so this key is not another's.
            key = key.replacen('_', "__", 1);
        }
        let mut value = self.component(Platform::Button, &key, &button.label);
        let request = Topic::Request(pistat_protocol::id::Target::Pi(self.pi.clone()));
        let options = json!({
            "command_topic": self.place.topics.format(&request),
            "payload_press": button.task.as_str(),
            "retain": false,
            "entity_category": "config",
        });
        add(&mut value, options);
        if button.ends == Ends::Restart {
            value["device_class"] = "restart".into();
        }
        (key, value)
    }

    /// Off while the machine is away: so it does not ask for the machine itself. Where the
    /// controller tells of its own machine, nothing else could tell.
    fn online(&self) -> Value {
        let mut value = self.component(Platform::BinarySensor, "online", "Online");
        let availability = if self.pi.is_controller() { json!([]) } else { self.controller_only() };
        let options = json!({
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": self.own(Topic::Status),
            "payload_on": "online",
            "payload_off": "offline",
            "availability": availability,
        });
        add(&mut value, options);
        value
    }

    /// Runs also end (expired, lost) while their machine is away.
    fn task_result(&self) -> Value {
        let mut value = self.component(Platform::Event, TASK_RESULT, "Task result");
        let kinds: Vec<_> = RunState::ALL.into_iter().filter(|state| state.is_final()).map(RunState::as_str).collect();
        let options = json!({
            "state_topic": self.own(Topic::Result),
            "event_types": kinds,
            "icon": "mdi:console-line",
            "availability": self.controller_only(),
        });
        add(&mut value, options);
        value
    }

    fn controller_only(&self) -> Value {
        json!([{"topic": self.controller_status()}])
    }
}

fn add(value: &mut Value, options: Value) {
    if let (Value::Object(value), Value::Object(options)) = (value, options) {
        value.extend(options);
    }
}

/// The key of a file system: the one that it was announced under, or one that no other component
/// has. Where names make the same key, the first keeps it, as it always did, and the others have a
/// hash of their name.
fn disk_key(mount: &str, pi: &PiId, announced: Option<&Components>, is_used: impl Fn(&str) -> bool) -> String {
    if mount == "/" {
        return "disk".to_owned();
    }
    let is_own = |component: &Component| matches!(component, Component::Disk { disk } if disk == mount);
    let mut known = announced.into_iter().flatten().filter(|(_, component)| is_own(component));
    if let Some((key, _)) = known.find(|(key, _)| !is_used(key)) {
        return key.clone();
    }
    let plain = format!("disk_{}", slug(mount, pi.as_str()));
    let digest = pistat_protocol::order::hex(&pistat_protocol::order::sha256(mount.as_bytes()));
    let is_another = |key: &str| {
        let is_other = |component: &Component| matches!(component, Component::Disk { disk } if disk != mount);
        announced.and_then(|announced| announced.get(key)).is_some_and(is_other)
    };
    let is_free = |key: &String| !is_used(key) && !is_another(key) && !is_fixed(key);
    let hashed = [8, 16, 32, 64].map(|length| format!("{plain}_{}", &digest[..length]));
    [plain].into_iter().chain(hashed.clone()).find(is_free).unwrap_or_else(|| hashed[3].clone())
}

/// Whether a key is an entity's that machines have or may have later.
fn is_fixed(key: &str) -> bool {
    OF_SAMPLES.iter().any(|entity| entity.key == key) || OF_INFO.iter().any(|entity| entity.key == key)
}

/// As an entity id has it: small letters, digits, single underscores between them.
fn slug(text: &str, otherwise: &str) -> String {
    let plain = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
    };
    let slug = plain(text);
    if slug.is_empty() { plain(otherwise) } else { slug }
}

#[cfg(test)]
mod tests;
