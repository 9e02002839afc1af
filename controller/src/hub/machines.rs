//! Machines: what they say over MQTT, what people give them, and who looks at them.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pistat_broker::BrokerEvent;
use pistat_protocol::{
    account::Role,
    api::PatchMachine,
    codec::{decode, encode},
    dashboard::{Change, EventKind, Machine, MachineStatus, Severity},
    id::PiId,
    stats::{Power, Sample},
    status::{Availability, Info, Watch},
    topic::Topic,
};

use super::{
    Hub, PendingAccess, PendingCommit, PendingReply, SLICE, SLICE_TIME,
    ask::{Refused, Reply},
    lanes::Sender,
    refuse,
    repeats::{Line, Repeated, clean, source},
};
use crate::{
    access::{AccessChange, Caller},
    bridge::{Heard, Outgoing},
    config::Broker,
    fleet::{Heard as HeardMachine, bound_sample},
    store::{Durability, MetadataPatch, Write},
};

/// How long one lease of `watch` lasts; it is renewed at half of that.
const WATCH_SECONDS: u32 = 30;

/// How many machines are known at most on a broker that is not ours, where whoever may publish can
/// make them up.
const MOST_MACHINES: usize = 20_000;

/// How long a machine is watched after the last dashboard said that it looks.
const WATCHED: Duration = Duration::from_secs(60);

impl Hub {
    /// Messages came. They are sorted by their senders, who take turns; what the connection says of
    /// itself holds for all that came before it.
    pub(super) fn received(&mut self, batch: Vec<Heard>) {
        for heard in batch {
            let Some(sender) = Sender::of(&heard) else {
                while let Some(earlier) = self.lanes.next() {
                    self.heard(earlier);
                }
                self.heard(heard);
                continue;
            };
            if !self.lanes.push(sender.clone(), heard) {
                self.too_many_messages(sender);
            }
        }
        let begun = Instant::now();
        for _ in 0..SLICE {
            let Some(heard) = self.lanes.next() else { return };
            self.heard(heard);
            if begun.elapsed() >= SLICE_TIME {
                return;
            }
        }
    }

    fn too_many_messages(&mut self, sender: Sender) {
        self.counters.refused();
        let text = "sends messages faster than they can be handled; some were dropped".to_owned();
        let (kind, severity, run) = (EventKind::Mqtt, Severity::Warning, None);
        let (source, line) = match sender {
            Sender::Machine(pi) => (pi.key(), Line { kind, severity, pi: Some(pi), run, account: None, text }),
            Sender::Joining => {
                let text = "peers that join send messages faster than they can be handled; some were dropped".into();
                (String::new(), Line { kind, severity, pi: None, run, account: None, text })
            }
            Sender::Account(name) => {
                let account = Some(name.to_string()).filter(|name| !name.is_empty());
                (format!("account {name}"), Line { kind, severity, pi: None, run, account, text })
            }
        };
        self.repeated_event(Repeated::Anomaly, source, line);
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Connected => {
                self.outbox.connected();
                tracing::debug!("connected to the broker");
                self.announce_everything();
                self.look_again();
                self.republish.ended(self.runs.newest_retained());
                self.tell_of_broker(Severity::Info, "connected to the broker");
            }
            Heard::Disconnected => self.disconnected(),
            Heard::Message { topic: Topic::Request(target), payload, retain, account, response } => {
                self.requested(&target, &payload, retain, account.as_deref(), response);
            }
            Heard::Misaddressed { topic, why, retain, account, response } => {
                self.misaddressed(topic, &why, retain, account.as_deref(), response);
            }
            Heard::RetainedElsewhere { topic, payload } => self.retained_elsewhere(&topic, &payload),
            Heard::Birth { payload, retain } => self.homeassistant_said(&payload, retain),
            Heard::Message { topic: Topic::EnrollRequest(pi), payload, retain: false, account, .. } => {
                self.enrol(&pi, &payload, account.as_deref());
            }
            Heard::Message { topic, payload, retain, .. } => self.message(topic, &payload, retain),
        }
    }

    fn disconnected(&mut self) {
        self.announcer.disconnected();
        self.outbox.disconnected();
        self.tell_of_broker(
            Severity::Error,
            "the connection to the broker is lost: nothing is heard of any machine until it is back",
        );
        // Whether an agent is still there is told again on the next connection; until then nothing
        // is sent to it.
        self.agents.all_left();
    }

    /// Another's broker comes and goes without us; ours does not.
    fn tell_of_broker(&mut self, severity: Severity, text: &str) {
        if self.config.mqtt.broker != Broker::Embedded {
            self.event(EventKind::System, severity, None, None, None, text.into());
        }
    }

    fn message(&mut self, topic: Topic, payload: &Bytes, retain: bool) {
        if let Some(pi) = topic.machine().filter(|_| payload.len() > topic.most_payload_bytes()) {
            let why = format!("it has {} bytes, {} at most are read", payload.len(), topic.most_payload_bytes());
            return self.unreadable(pi, &why);
        }
        if retain && self.is_leftover(&self.topics.format(&topic), payload) {
            return;
        }
        if let Topic::Meta(pi) = &topic {
            // Of a machine that never came, this is all that there is.
            if retain && !payload.is_empty() && self.is_left_behind(pi, payload, retain) {
                self.clear_machine(pi);
            }
            return;
        }
        if let Topic::Status(pi) | Topic::Info(pi) | Topic::Stats(pi) = &topic
            && !payload.is_empty()
        {
            if self.config.mqtt.broker != Broker::Embedded && !self.may_exist(pi) {
                return self.not_taken_in(pi);
            }
            if self.is_left_behind(pi, payload, retain) {
                return self.clear_machine(pi);
            }
            if self.access.is_forgotten(pi) {
                self.store_access(vec![AccessChange::ReturnAgent(pi.clone())], None, PendingAccess::Returned);
            }
        }
        match topic {
            Topic::Status(pi) => self.machine_status(&pi, payload, retain),
            Topic::Info(pi) => self.with(&pi, payload, retain, Self::machine_info),
            Topic::Stats(pi) => self.with(&pi, payload, retain, Self::machine_sample),
            Topic::Backfill(pi) => self.with(&pi, payload, retain, Self::backfilled),
            Topic::Report(pi, run) => {
                self.with(&pi, payload, retain, |hub, pi, report, _| hub.reported(pi, run, report));
            }
            Topic::RunStatus(pi, run) | Topic::Output(pi, run) if retain => self.retained_of_run(pi, run),
            Topic::Output(pi, run) => {
                self.with(&pi, payload, retain, |hub, pi, chunk, _| hub.output_came(pi, run, chunk));
            }
            _ => {}
        }
    }

    /// A machine of another's broker is not made known.
    fn not_taken_in(&mut self, pi: &PiId) {
        self.counters.refused();
        let why = match self.fleet.other_named(pi) {
            Some(owner) => {
                format!("it is the pi-id, the label or a tag of the machine {owner}: give it another --pi-id")
            }
            None => format!("there are {MOST_MACHINES} machines already"),
        };
        let text = format!("the machine {pi} is not taken in: {why}");
        let line = Line { pi: None, ..alert(pi, Severity::Warning, text) };
        self.repeated_event(Repeated::Name, pi.key(), line);
    }

    /// The source of what an account or a machine causes, for [`Repeated`]. A peer that joins
    /// chooses its own name, so all of them together are one source, without a name.
    fn member_key(&self, name: &str) -> String {
        let is_enrolled = self.access.agent(name).is_some_and(|agent| agent.secret_sha256.is_some());
        if is_enrolled || self.access.account(name).is_some() { name.to_lowercase() } else { String::new() }
    }

    /// Counts a message of a machine that cannot be read, and writes that at most once a minute.
    pub(super) fn unreadable(&mut self, pi: &PiId, why: &str) {
        self.counters.refused();
        let (key, why) = (self.member_key(pi.as_str()), clean(why));
        let (text, pi_of_line) = if key.is_empty() && !self.fleet.contains(pi) {
            (format!("a message of {pi}, which joins, cannot be read and was dropped: {why}"), None)
        } else {
            (format!("a message of this machine cannot be read and was dropped: {why}"), Some(pi.clone()))
        };
        let key = if pi_of_line.is_some() { pi.key() } else { key };
        let line = Line { pi: pi_of_line, ..alert(pi, Severity::Warning, text.clone()) };
        if self.repeated_event(Repeated::Unreadable, key, line) {
            tracing::warn!(%pi, "{text}");
        }
    }

    /// Decodes a message of a known machine and hands it on; a bad one is counted, logged and
    /// dropped.
    fn with<T: serde::de::DeserializeOwned>(
        &mut self,
        pi: &PiId,
        payload: &Bytes,
        retain: bool,
        then: impl FnOnce(&mut Self, &PiId, T, bool),
    ) {
        if payload.is_empty() || !self.may_exist(pi) {
            return;
        }
        match decode(payload) {
            Ok(value) => then(self, pi, value, retain),
            Err(error) => self.unreadable(pi, &error.to_string()),
        }
    }

    /// Whether a machine's topic is of one that was forgotten, by a controller that was ended
    /// before all of it was cleared: its own broker lets in only who has enrolled, on another's the
    /// machine is there again as soon as it speaks. Its last will is not its own word.
    fn is_left_behind(&self, pi: &PiId, payload: &Bytes, retain: bool) -> bool {
        let is_own_word = !retain && Availability::from_payload(payload) != Some(Availability::Offline);
        !self.may_exist(pi) || (self.access.is_forgotten(pi) && !is_own_word)
    }

    /// With our own broker only machines that enrolled can speak.
    pub(super) fn may_exist(&self, pi: &PiId) -> bool {
        let enrolled =
            || self.access.agent(pi.as_str()).is_some_and(|agent| agent.pi == *pi && agent.secret_sha256.is_some());
        if self.config.mqtt.broker == Broker::Embedded {
            return pi.is_controller() || enrolled();
        }
        self.fleet.contains(pi) || (self.fleet.len() < MOST_MACHINES && self.fleet.other_named(pi).is_none())
    }

    fn machine_status(&mut self, pi: &PiId, payload: &Bytes, retain: bool) {
        if payload.is_empty() {
            return;
        }
        let Some(availability) = Availability::from_payload(payload) else {
            return self.unreadable(pi, "its status is neither online nor offline");
        };
        if availability == Availability::Offline && !self.fleet.contains(pi) {
            // That it is gone makes no machine known, such as a last will that comes late. A
            // retained word may come before a machine's `info`, and stays.
            if !retain {
                let topic = self.topics.format(&Topic::Status(pi.clone()));
                let cleared = Outgoing { topic, payload: Vec::new(), qos: 1, retain: true, correlation: None };
                self.answer_to(Sender::Machine(pi.clone()), cleared);
            }
            return;
        }
        if availability == Availability::Offline {
            if pi.is_controller() {
                // The last will of an earlier connection: whoever hears it is there, and the bridge
                // says so.
                return;
            }
            self.agents.left(pi);
        }
        let heard = self.fleet.availability(pi, availability, retain, self.now);
        self.status_changed(pi, heard, retain);
    }

    fn status_changed(&mut self, pi: &PiId, heard: HeardMachine, retain: bool) {
        if heard.new {
            self.name_is_taken(pi.as_str(), Some(pi));
            self.announce_given(pi);
        }
        if heard.new || heard.before != heard.after {
            self.push_machine(pi);
        }
        let (was, is) = (heard.before != MachineStatus::Offline, heard.after != MachineStatus::Offline);
        if was == is || retain {
            return;
        }
        let (severity, text) = if is {
            (Severity::Info, "online")
        } else {
            (Severity::Warning, "offline: the connection ended or its last will was received")
        };
        self.repeated_event(Repeated::Presence, pi.key(), alert(pi, severity, text.into()));
    }

    fn machine_info(&mut self, pi: &PiId, info: Info, retain: bool) {
        let (session, known, boot_id) = (info.session.clone(), info.known_runs.clone(), info.boot_id.clone());
        let (label, told) = (self.fleet.label(pi), info.label.clone());
        let was_used = self.fleet.machine_info(pi).is_none_or(|info| info.label.is_some());
        self.order_alerts(pi, &info);
        let heard = self.fleet.info(pi, info, self.now);
        let used = self.fleet.machine_info(pi).and_then(|info| info.label.clone());
        if used.is_some_and(|used| self.access.account(&used).is_some()) {
            self.fleet.drop_label(pi);
        }
        let is_used = self.fleet.machine_info(pi).is_some_and(|info| info.label.is_some());
        if let Some(told) = told.filter(|_| was_used && !is_used) {
            self.label_not_used(pi, &told);
        }
        if heard.new {
            self.name_is_taken(pi.as_str(), Some(pi));
        }
        if heard.new {
            self.announce_given(pi);
        } else if self.fleet.label(pi) != label {
            self.republish.relabelled(pi.clone());
        }
        self.push_machine(pi);
        if let Some(info) = self.fleet.machine_info(pi) {
            self.announcer.info(pi, info, self.fleet.machine_sample(pi), self.now.monotonic);
        }
        // What is retained may be of an earlier session: only a live word settles anything.
        if !retain {
            self.twin_alert(pi);
            if self.agents.began(pi.clone(), session.clone()) {
                self.history.look_up(pi);
            }
            let steps = self.runs.settle(pi, &session, &known, &boot_id, self.now);
            self.perform(steps);
        }
    }

    /// Tells when two machines take the connection from each other: a copied card, until somebody
    /// says otherwise.
    fn twin_alert(&mut self, pi: &PiId) {
        let Some(twins) = self.fleet.twins(pi) else { return };
        let text = format!("two machines use this pi-id: {twins}; give one its own --pi-id and enrol it anew");
        self.repeated_event(Repeated::Twins, pi.key(), alert(pi, Severity::Error, text));
    }

    /// Tells when an agent has refused orders: somebody on the broker tried to make it run
    /// something.
    fn order_alerts(&mut self, pi: &PiId, info: &Info) {
        let before =
            self.fleet.machine_info(pi).filter(|old| old.session == info.session).and_then(|old| old.orders_refused);
        let (before, now) = (before.unwrap_or(0), info.orders_refused.unwrap_or(0));
        if now > before {
            let why: String = info
                .last_order_refused
                .iter()
                .flat_map(|why| why.chars())
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            let text = format!("refused {} order(s) that this controller did not sign for it: {why}", now - before);
            self.repeated_event(Repeated::Orders, pi.key(), alert(pi, Severity::Error, text));
        }
    }

    fn machine_sample(&mut self, pi: &PiId, mut sample: Sample, retain: bool) {
        bound_sample(&mut sample);
        let sample = Arc::new(sample);
        if !retain {
            self.power_alerts(pi, sample.power.as_ref());
            self.feed.push(Change::Stats { pi: pi.clone(), stats: sample.clone() });
            self.history.live(pi, &sample, self.now);
        }
        self.announcer.sample(pi, &sample);
        let heard = self.fleet.sample(pi, sample, retain, self.now);
        if heard.new || heard.before != heard.after {
            self.push_machine(pi);
        }
    }

    /// Tells when a machine's power becomes bad, and when it is good again.
    fn power_alerts(&mut self, pi: &PiId, power: Option<&Power>) {
        let Some(power) = power else { return };
        let before = self.agents.power(pi, power);
        let flags = [
            ("under-voltage", before.undervoltage, power.undervoltage),
            ("throttled", before.throttled, power.throttled),
            ("frequency capped", before.frequency_capped, power.frequency_capped),
            ("soft temperature limit", before.temperature_limited, power.temperature_limited),
        ];
        let raw = power.raw.as_ref().map(|raw| format!(" ({raw})")).unwrap_or_default();
        for (name, was, is) in flags {
            let (severity, text) = match (was.unwrap_or(false), is.unwrap_or(false)) {
                (false, true) => (Severity::Warning, format!("{name} detected{raw}")),
                (true, false) => (Severity::Info, format!("{name} is over")),
                _ => continue,
            };
            self.repeated_event(Repeated::Power, format!("{} {name}", pi.key()), alert(pi, severity, text));
        }
    }

    pub(super) fn broker_event(&mut self, event: BrokerEvent) {
        let who = |account: &str| self.member_key(account);
        let come = |account: &str, peer: SocketAddr| format!("{} {}", who(account), source(peer.ip()));
        let (what, source, severity, account, text) = match event {
            BrokerEvent::Connected { account, peer, .. } => {
                let key = come(&account, peer);
                self.used_over_mqtt(&account, peer.ip());
                (Repeated::Connected, key, Severity::Info, account, format!("connected from {}", peer.ip()))
            }
            BrokerEvent::TakenOver { account, client_id, peer, .. } => {
                let text = format!("session of client {client_id} taken over from {}", peer.ip());
                (Repeated::Connected, come(&account, peer), Severity::Info, account, text)
            }
            BrokerEvent::Disconnected { account, reason, .. } => {
                let text = format!("disconnected: {reason}");
                (Repeated::Disconnected, who(&account), Severity::Info, account, text)
            }
            BrokerEvent::SessionEnded { account, reason, .. } => {
                let text = format!("session ended: {reason}");
                (Repeated::Disconnected, who(&account), Severity::Warning, account, text)
            }
            BrokerEvent::PublishRefused { account, topic, reason, .. } => {
                let key = who(&account);
                self.report_refused(&account, &topic);
                let text = format!("may not publish to {topic}: {reason}");
                (Repeated::Publish, key, Severity::Warning, account, text)
            }
            BrokerEvent::SubscribeRefused { account, filter, reason, .. } => {
                let text = format!("may not subscribe to {filter}: {reason}");
                (Repeated::Subscribe, who(&account), Severity::Warning, account, text)
            }
            BrokerEvent::Refused { user_name, peer, reason, .. } => {
                // A name that was not proved is nobody's doing: it takes no room from the account
                // that has it.
                let text = format!("refused from {} as {user_name:?}: {reason}", peer.ip());
                (Repeated::Connect, source(peer.ip()), Severity::Warning, String::new(), text)
            }
            BrokerEvent::StateDamaged { kept, reason } => {
                let text =
                    format!("retained messages were damaged ({reason}); the file was set aside as {}", kept.display());
                return self.event(EventKind::System, Severity::Error, None, None, None, text);
            }
        };
        // Our own connection is not news.
        if account != "controller" {
            let is_member = !account.is_empty() && !self.member_key(&account).is_empty();
            let text = if is_member || account.is_empty() { text } else { format!("{account}, which joins: {text}") };
            let account = is_member.then(|| clean(&account));
            let line = Line { kind: EventKind::Mqtt, severity, pi: None, run: None, account, text: clean(&text) };
            self.repeated_event(what, source, line);
        }
    }

    /// A machine as it is shown, with what it cannot run; `role` is that of who looks, or `None`
    /// for everybody.
    pub(super) fn machine(&self, pi: &PiId, with_sample: bool, role: Option<Role>) -> Option<Machine> {
        let machine = self.fleet.machine(pi, with_sample, self.now)?;
        Some(Machine { cannot_run: self.catalogue.cannot_run(&self.fleet.facts(pi), role), ..machine })
    }

    /// All machines, as [`Hub::machine`] shows each.
    pub(super) fn machines(&self, role: Option<Role>) -> Vec<Machine> {
        let mut machines = self.fleet.machines(self.now);
        for machine in &mut machines {
            machine.cannot_run = self.catalogue.cannot_run(&self.fleet.facts(&machine.id), role);
        }
        machines
    }

    pub(super) fn tell_machine(&self, caller: &Caller, pi: &PiId, reply: Reply<Machine>) {
        let machine = self.machine(pi, true, Some(caller.role));
        let _ =
            reply.send(machine.ok_or_else(|| Refused::missing(crate::fleet::FleetRefusal::Unknown(pi.to_string()))));
    }

    pub(super) fn patch(&mut self, caller: &Caller, pi: PiId, patch: PatchMachine, reply: Reply<Machine>) {
        let text = |value: Option<Option<String>>| {
            value.map(|text| text.map(|text| text.trim().to_string()).filter(|text| !text.is_empty()))
        };
        let mut tags = patch.tags;
        if let Some(tags) = &mut tags {
            tags.sort();
            tags.dedup();
        }
        let mut change = MetadataPatch {
            label: text(patch.label),
            assignment: text(patch.assignment),
            tags,
            needs_confirmation: caller.role < Role::Admin,
            confirmed: patch.confirm_tags.unwrap_or_default(),
            interval_seconds: patch.interval,
        };
        if let Err(refused) = self.check_settled(&pi.key(), pi.as_str()) {
            return refuse(reply, refused);
        }
        if let Some(refused) = self.may_not_tag(caller, &pi, &change) {
            return refuse(reply, refused);
        }
        if change.needs_confirmation {
            // They count already; an operator's word adds nothing to them.
            change.confirmed.clear();
        }
        match self.fleet.check(&pi, &change) {
            Ok(()) => {
                self.commits.store(
                    Durability::Rejectable,
                    Write::Metadata(pi.clone(), change.clone()),
                    PendingCommit::Metadata(pi, change, caller.clone(), reply),
                );
            }
            Err(refusal @ crate::fleet::FleetRefusal::Unknown(_)) => refuse(reply, Refused::missing(refusal)),
            Err(refusal) => refuse(reply, Refused::bad(refusal)),
        }
    }

    /// What people gave a machine is on the disk.
    pub(super) fn given(&mut self, pi: &PiId, change: &MetadataPatch, by: &Caller, reply: Reply<Machine>) {
        self.fleet.give(pi, change);
        self.names_are_given(pi, change);
        self.announce_given(pi);
        self.push_machine(pi);
        let label = self.fleet.label(pi);
        let mut told = Vec::new();
        if change.label.is_some() {
            told.push(format!("renamed to {label}"));
        }
        match &change.assignment {
            Some(Some(text)) => told.push(format!("is responsible for {text}")),
            Some(None) => told.push("has no responsibility any more".into()),
            None => {}
        }
        if let Some(tags) = &change.tags {
            let tags: Vec<_> = tags.iter().map(|tag| format!("@{tag}")).collect();
            told.push(if tags.is_empty() {
                "has no tags any more".into()
            } else {
                format!("is tagged {}", tags.join(" "))
            });
        }
        if !change.confirmed.is_empty() {
            let tags: Vec<_> = change.confirmed.iter().map(|tag| format!("@{tag}")).collect();
            told.push(format!("has {} from an administrator now", tags.join(" ")));
        }
        match change.interval_seconds {
            Some(Some(seconds)) => told.push(format!("samples every {seconds} s")),
            Some(None) => told.push("samples at its agent's own interval".into()),
            None => {}
        }
        for text in told {
            let account = Some(by.account.to_string());
            let line = Line {
                kind: EventKind::Label,
                severity: Severity::Info,
                pi: Some(pi.clone()),
                run: None,
                account,
                text,
            };
            self.repeated_event(Repeated::Label, by.account.key(), line);
        }
        self.tell_machine(by, pi, reply);
    }

    pub(super) fn forget(&mut self, caller: &Caller, pi: PiId, reply: Reply<()>) {
        if pi.is_controller() {
            return refuse(reply, Refused::conflict("the controller's own machine cannot be forgotten"));
        }
        if !self.fleet.contains(&pi) && self.access.agent(pi.as_str()).is_none() {
            return refuse(reply, Refused::missing(crate::fleet::FleetRefusal::Unknown(pi.to_string())));
        }
        if let Err(refused) = self.check_settled(&pi.key(), pi.as_str()) {
            return refuse(reply, refused);
        }
        // Revoked first: once that is on the disk, the rest can be done again at any time.
        self.store_access(
            vec![AccessChange::RemoveAgent(pi.clone())],
            None,
            PendingAccess::Forgotten(pi, caller.account.to_string(), reply),
        );
    }

    /// A machine is revoked and has nothing any more, and that is on the disk. The answer follows
    /// when the end of its runs is there, too.
    pub(super) fn forgotten(&mut self, pi: &PiId, by: &str, promise: Option<PendingReply>) {
        let steps = self.runs.forget(pi, self.now);
        self.perform(steps);
        self.fleet.forget(pi);
        self.history.forget(pi);
        self.commits.end_change(&pi.key());
        self.agents.forget(pi);
        self.announcer.forgotten(pi);
        self.clear_machine(pi);
        self.feed.push(Change::Forgotten { pi: pi.clone() });
        self.event(
            EventKind::Access,
            Severity::Warning,
            Some(pi),
            None,
            Some(by),
            "was forgotten: revoked, disconnected, its topics cleared".into(),
        );
        self.commits.turn().promises.extend(promise);
    }

    pub(super) fn watch(&mut self, pis: Vec<PiId>) {
        for pi in pis.into_iter().filter(|pi| self.fleet.contains(pi)).collect::<Vec<_>>() {
            if self.agents.watch(pi.clone(), self.now.monotonic) {
                self.lease(&pi);
            }
        }
    }

    fn lease(&mut self, pi: &PiId) {
        self.publish(&Topic::Watch(pi.clone()), encode(&Watch { seconds: WATCH_SECONDS }), 0, false);
    }

    /// Renews the leases of machines that somebody looks at, every few seconds.
    pub(super) fn renew_watches(&mut self) {
        let now = self.now.monotonic;
        let watched = self.agents.watched(WATCHED, now);
        if self.counters.uptime(now).as_secs().is_multiple_of(u64::from(WATCH_SECONDS / 3)) {
            for pi in watched {
                self.lease(&pi);
            }
        }
    }
}

/// A line about a machine.
pub(super) fn alert(pi: &PiId, severity: Severity, text: String) -> Line {
    Line { kind: EventKind::Alert, severity, pi: Some(pi.clone()), run: None, account: None, text }
}
