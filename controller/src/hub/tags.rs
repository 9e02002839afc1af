//! Names and tags: who may give which tag, and which name an agent does not have.

use pistat_protocol::{
    account::Role,
    dashboard::{EventKind, Severity},
    id::{PiId, Tag},
};

use super::{Hub, ask::Refused, machines::alert, repeats::Repeated, schedule::NAMED_MACHINES};
use crate::{access::Caller, store::MetadataPatch};

impl Hub {
    /// Why a caller may not change a machine's tags so: where the catalogue says by a tag where a
    /// task may run, who gives the tag decides that, and this is for administrators.
    pub(super) fn may_not_tag(&self, caller: &Caller, pi: &PiId, change: &MetadataPatch) -> Option<Refused> {
        if caller.role >= Role::Admin {
            return None;
        }
        let (before, unconfirmed) = (self.fleet.tags(pi), self.fleet.unconfirmed_tags(pi));
        if let Some(tag) = change.confirmed.iter().find(|tag| unconfirmed.contains(tag)) {
            return Some(Refused::forbidden(format!(
                "{pi} has the tag @{tag} already, from an operator: only an administrator confirms it"
            )));
        }
        // Nor does one who gives a tag confirm it in the same breath.
        if let Some(tag) = change.confirmed.iter().find(|tag| !before.contains(tag)) {
            return Some(Refused::forbidden(format!("only an administrator confirms a tag, such as @{tag}")));
        }
        let tags = change.tags.as_deref()?;
        let changed = |tag: &&Tag| before.contains(tag) != tags.contains(tag);
        let tag = before.iter().chain(tags).filter(changed).find(|tag| self.catalogue.is_bound_to(tag))?;
        Some(Refused::forbidden(format!(
            "@{tag} says where tasks of the catalogue may run (`on`): only an administrator gives or takes it"
        )))
    }

    /// Reports the tags that operators gave and that the catalogue names in `on`: they do not
    /// count.
    pub(super) fn report_unconfirmed_tags(&mut self) {
        let bound = |pi: &PiId| {
            let tags = self.fleet.unconfirmed_tags(pi).iter();
            tags.filter(|tag| self.catalogue.is_bound_to(tag)).map(|tag| format!("{pi} @{tag}")).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.fleet.ids().flat_map(bound).collect();
        if all.is_empty() {
            return;
        }
        let more = all.len().saturating_sub(NAMED_MACHINES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!(
            "tags given by operators do not count where the catalogue says `on`: {}{more}; an administrator confirms \
             one with `pistat tag add <pi> <tag>`",
            all.iter().take(NAMED_MACHINES).map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        self.event(EventKind::Access, Severity::Warning, None, None, None, text);
    }

    /// Something has a name now: what agents call their machines by that name is not used any more.
    pub(super) fn name_is_taken(&mut self, name: &str, owner: Option<&PiId>) {
        for (pi, label) in self.fleet.calling_themselves(name, owner) {
            self.fleet.drop_label(&pi);
            self.label_not_used(&pi, &label);
            self.republish.relabelled(pi.clone());
            self.push_machine(&pi);
        }
    }

    /// As [`Hub::name_is_taken`], for the names that people give a machine.
    pub(super) fn names_are_given(&mut self, pi: &PiId, change: &MetadataPatch) {
        let label = change.label.iter().flatten().map(String::as_str);
        for name in label.chain(change.tags.iter().flatten().map(Tag::as_str)) {
            self.name_is_taken(name, Some(pi));
        }
    }

    /// What an agent calls its machine is the name of something else.
    pub(super) fn label_not_used(&mut self, pi: &PiId, label: &str) {
        let text = format!(
            "calls itself {label:?}, which is the name of something else: its pi-id is shown instead, until somebody \
             renames it"
        );
        self.repeated_event(Repeated::Name, pi.key(), alert(pi, Severity::Warning, text));
    }
}
