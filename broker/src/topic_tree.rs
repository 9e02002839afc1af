//! The topic tree: finds the subscriptions that match a topic, in time proportional to its levels.
//!
//! Nodes without subscribers are removed, so a million filters later the tree is as small as
//! before. It knows nothing of rights, queues or messages.

use std::collections::HashMap;
use std::sync::Arc;

use crate::message::SessionId;
use crate::packet::SubscriptionOptions;

/// One subscription that a topic has hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// The session.
    pub(crate) session: SessionId,
    /// The subscription identifier, 0 for none.
    pub(crate) identifier: u32,
    /// How it wants its messages.
    pub(crate) options: SubscriptionOptions,
}

/// Sessions that share a subscription: each message goes to one of them.
#[derive(Debug)]
struct Group {
    name: Box<str>,
    /// The whole text of the subscription.
    share: Arc<str>,
    members: Vec<Subscriber>,
    /// Who is next, in turn.
    turn: usize,
}

impl Group {
    /// The members, whose turn it is first.
    fn take_turn(&mut self) -> Shared {
        let count = self.members.len().max(1);
        let (after, before) = self.members.split_at(self.turn % count);
        self.turn = (self.turn + 1) % count;
        Shared { share: self.share.clone(), members: [before, after].concat() }
    }
}

/// So many children are looked through one by one.
const FEW: usize = 8;

/// The levels below a node. Nearly all nodes have a handful, for which a hash map is ten times
/// their size; the one with the machines has thousands.
#[derive(Debug)]
enum Children {
    Few(Vec<(Box<str>, Node)>),
    #[expect(clippy::box_collection, reason = "half the size of a node, of which a fleet has a hundred thousand")]
    Many(Box<HashMap<Box<str>, Node>>),
}

impl Default for Children {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Children {
    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut Node> {
        match self {
            Self::Few(few) => few.iter_mut().find(|(name, _)| &**name == level).map(|(_, node)| node),
            Self::Many(many) => many.get_mut(level),
        }
    }

    /// Adds a level that is not there.
    fn add(&mut self, level: &str) {
        if let Self::Few(few) = self
            && few.len() == FEW
        {
            *self = Self::Many(Box::new(few.drain(..).collect()));
        }
        let (level, node) = (level.into(), Node::default());
        match self {
            Self::Few(few) => {
                few.reserve_exact(1);
                few.push((level, node));
            }
            Self::Many(many) => drop(many.insert(level, node)),
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Few(few) => few.retain(|(name, _)| &**name != level),
            Self::Many(many) => {
                many.remove(level);
                if many.capacity() > 4 * many.len() + 16 {
                    many.shrink_to_fit();
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    children: Children,
    /// The child for `+`.
    any_level: Option<Box<Node>>,
    /// Who has subscribed here.
    subscribers: Vec<Subscriber>,
    groups: Vec<Group>,
    /// Subscribers of this level and everything below it, `#`.
    any_rest: Option<Box<Node>>,
}

/// What a topic has hit.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    /// Plain subscriptions; a session with overlapping ones stands here more than once.
    pub(crate) subscribers: Vec<Subscriber>,
    /// Whether a session may stand in `subscribers` more than once.
    pub(crate) may_repeat: bool,
    /// Shared subscriptions: the members of one group after the other, each group in its turn.
    pub(crate) shared: Vec<Shared>,
}

/// A shared subscription that a topic has hit.
#[derive(Debug)]
pub(crate) struct Shared {
    /// As it was subscribed, `$share/<group>/` included.
    pub(crate) share: Arc<str>,
    pub(crate) members: Vec<Subscriber>,
}

impl Hits {
    pub(crate) fn clear(&mut self) {
        self.subscribers.clear();
        self.shared.clear();
        self.may_repeat = false;
    }
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct TopicTree {
    root: Node,
}

impl TopicTree {
    /// Adds a subscription or changes the options of the one that is there; says whether it is new.
    pub(crate) fn subscribe(&mut self, filter: &str, group: Option<&str>, subscriber: Subscriber) -> bool {
        let node = self.root.reach(filter);
        let list = match group {
            None => &mut node.subscribers,
            Some(name) => node.group(name, filter),
        };
        let known = list.iter_mut().find(|known| known.session == subscriber.session);
        let is_new = known.is_none();
        if let Some(known) = known {
            *known = subscriber;
        } else {
            // Most levels have one: at first no more room than that is made.
            if list.is_empty() {
                list.reserve_exact(1);
            }
            list.push(subscriber);
        }
        is_new
    }

    /// The members of one shared subscription, in their turn; `None` when there are none.
    pub(crate) fn members(&mut self, filter: &str, group: &str) -> Option<Shared> {
        let node = filter.split('/').try_fold(&mut self.root, |node, level| match level {
            "+" => node.any_level.as_deref_mut(),
            "#" => node.any_rest.as_deref_mut(),
            _ => node.children.get_mut(level),
        })?;
        node.groups.iter_mut().find(|known| &*known.name == group).map(Group::take_turn)
    }

    /// Removes a subscription; says whether there was one.
    pub(crate) fn unsubscribe(&mut self, filter: &str, group: Option<&str>, session: SessionId) -> bool {
        let mut levels = filter.split('/');
        self.root.remove(&mut levels, group, session)
    }

    /// Collects the subscriptions that match a topic.
    pub(crate) fn hits(&mut self, topic: &str, hits: &mut Hits) {
        hits.clear();
        let mut collector = Collector { hits, lists: 0 };
        let allow_wildcards = !topic.starts_with('$');
        self.root.collect(Some(topic), allow_wildcards, &mut collector);
        hits.may_repeat = collector.lists > 1;
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

struct Collector<'a> {
    hits: &'a mut Hits,
    lists: usize,
}

/// The first level of a topic and what follows it.
fn first_level(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

impl Node {
    fn reach(&mut self, filter: &str) -> &mut Self {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "+" => node.any_level.get_or_insert_default(),
                "#" => node.any_rest.get_or_insert_default(),
                _ => {
                    if node.children.get_mut(level).is_none() {
                        node.children.add(level);
                    }
                    node.children.get_mut(level).expect("the child was inserted above if it was missing")
                }
            };
        }
        node
    }

    fn group(&mut self, name: &str, filter: &str) -> &mut Vec<Subscriber> {
        let index = self.groups.iter().position(|group| &*group.name == name).unwrap_or_else(|| {
            let share = format!("$share/{name}/{filter}").into();
            self.groups.push(Group { name: name.into(), share, members: Vec::new(), turn: 0 });
            self.groups.len() - 1
        });
        &mut self.groups[index].members
    }

    fn remove<'a>(
        &mut self,
        levels: &mut impl Iterator<Item = &'a str>,
        group: Option<&str>,
        session: SessionId,
    ) -> bool {
        let Some(level) = levels.next() else { return self.remove_here(group, session) };
        match level {
            "+" => remove_below(&mut self.any_level, levels, group, session),
            "#" => remove_below(&mut self.any_rest, levels, group, session),
            _ => {
                let Some(child) = self.children.get_mut(level) else { return false };
                let found = child.remove(levels, group, session);
                if child.is_empty() {
                    self.children.remove(level);
                }
                found
            }
        }
    }

    fn remove_here(&mut self, group: Option<&str>, session: SessionId) -> bool {
        let Some(name) = group else { return remove_session(&mut self.subscribers, session) };
        let Some(index) = self.groups.iter().position(|group| &*group.name == name) else { return false };
        let found = remove_session(&mut self.groups[index].members, session);
        if self.groups[index].members.is_empty() {
            self.groups.swap_remove(index);
        }
        found
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any_level.is_none()
            && self.any_rest.is_none()
            && self.subscribers.is_empty()
            && self.groups.is_empty()
    }

    fn collect(&mut self, topic: Option<&str>, allow_wildcards: bool, into: &mut Collector<'_>) {
        if allow_wildcards && let Some(rest) = &mut self.any_rest {
            rest.collect_here(into);
        }
        let Some(topic) = topic else { return self.collect_here(into) };
        let (level, rest) = first_level(topic);
        if allow_wildcards && let Some(any) = &mut self.any_level {
            any.collect(rest, true, into);
        }
        if let Some(child) = self.children.get_mut(level) {
            child.collect(rest, true, into);
        }
    }

    fn collect_here(&mut self, into: &mut Collector<'_>) {
        if !self.subscribers.is_empty() {
            into.hits.subscribers.extend_from_slice(&self.subscribers);
            into.lists += 1;
        }
        into.hits.shared.extend(self.groups.iter_mut().map(Group::take_turn));
    }
}

fn remove_below<'a>(
    child: &mut Option<Box<Node>>,
    levels: &mut impl Iterator<Item = &'a str>,
    group: Option<&str>,
    session: SessionId,
) -> bool {
    let Some(node) = child else { return false };
    let found = node.remove(levels, group, session);
    if node.is_empty() {
        *child = None;
    }
    found
}

fn remove_session(list: &mut Vec<Subscriber>, session: SessionId) -> bool {
    let Some(index) = list.iter().position(|known| known.session == session) else { return false };
    list.swap_remove(index);
    if list.capacity() > 4 * list.len() + 4 {
        list.shrink_to_fit();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(number: u32) -> Subscriber {
        let session = SessionId::numbered(number);
        Subscriber { session, identifier: 0, options: SubscriptionOptions::default() }
    }

    fn sessions(tree: &mut TopicTree, topic: &str) -> Vec<SessionId> {
        let mut hits = Hits::default();
        tree.hits(topic, &mut hits);
        let mut sessions: Vec<SessionId> = hits.subscribers.iter().map(|s| s.session).collect();
        sessions.sort_unstable();
        sessions
    }

    #[test]
    fn the_tree_finds_what_the_filters_match() {
        let levels = ["a", "b", "", "+"];
        let mut filters = vec!["#".to_owned(), "$SYS/#".to_owned(), "$SYS/+".to_owned()];
        for x in levels {
            filters.extend([x.to_owned(), format!("{x}/#")]);
            for y in levels {
                filters.extend([
                    format!("{x}/{y}"),
                    format!("{x}/{y}/#"),
                    format!("{x}/{y}/+"),
                    format!("{x}/+/{y}/#"),
                ]);
            }
        }
        filters.retain(|f| !f.is_empty());
        filters.sort();
        filters.dedup();
        let mut tree = TopicTree::default();
        for (number, filter) in (0..).zip(&filters) {
            assert!(tree.subscribe(filter, None, subscriber(number)), "{filter}");
        }
        for topic in
            ["a", "b", "c", "/", "a/", "/a", "a/b", "a/b/a", "b/a/b/c", "$SYS", "$SYS/x", "$SYS/x/y", "a//b", "é"]
        {
            let matching = (0..).zip(&filters).filter(|(_, f)| crate::filter::matches(f, topic));
            let expected: Vec<SessionId> = matching.map(|(number, _)| SessionId::numbered(number)).collect();
            assert_eq!(sessions(&mut tree, topic), expected, "{topic}");
        }
        for (number, filter) in (0..).zip(&filters) {
            assert!(tree.unsubscribe(filter, None, SessionId::numbered(number)), "{filter}");
            assert!(!tree.unsubscribe(filter, None, SessionId::numbered(number)), "{filter}");
        }
        assert!(tree.is_empty());
    }

    #[test]
    fn a_level_may_have_few_children_and_then_many_and_then_none() {
        let mut tree = TopicTree::default();
        let filters: Vec<_> = (0..3 * FEW).map(|n| format!("fleet/pi-{n}/status")).collect();
        for (number, filter) in (0..).zip(&filters) {
            assert!(tree.subscribe(filter, None, subscriber(number)));
            assert!(!tree.subscribe(filter, None, subscriber(number)));
        }
        for (number, filter) in (0..).zip(&filters) {
            assert_eq!(sessions(&mut tree, filter), [SessionId::numbered(number)]);
            assert!(tree.unsubscribe(filter, None, SessionId::numbered(number)));
            assert!(!tree.unsubscribe(filter, None, SessionId::numbered(number)));
            assert!(sessions(&mut tree, filter).is_empty());
        }
        assert!(tree.is_empty());
    }

    #[test]
    fn subscribing_again_changes_the_options() {
        let mut tree = TopicTree::default();
        assert!(tree.subscribe("a", None, subscriber(1)));
        assert!(!tree.subscribe("a", None, Subscriber { identifier: 7, ..subscriber(1) }));
        let mut hits = Hits::default();
        tree.hits("a", &mut hits);
        assert_eq!(hits.subscribers, [Subscriber { identifier: 7, ..subscriber(1) }]);
        assert!(!hits.may_repeat);
    }

    #[test]
    fn a_group_takes_turns() {
        let mut tree = TopicTree::default();
        for number in 0..3 {
            tree.subscribe("a/+", Some("g"), subscriber(number));
        }
        let mut hits = Hits::default();
        let firsts: Vec<SessionId> = (0..6)
            .map(|_| {
                tree.hits("a/b", &mut hits);
                assert_eq!((hits.shared[0].members.len(), &*hits.shared[0].share), (3, "$share/g/a/+"));
                hits.shared[0].members[0].session
            })
            .collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2].map(SessionId::numbered));
        // By its name it is the same group in the same turn.
        assert_eq!(tree.members("a/+", "g").unwrap().members[0].session, SessionId::numbered(0));
        assert_eq!(tree.members("a/+", "g").unwrap().members[0].session, SessionId::numbered(1));
        assert!(tree.members("a/+", "h").is_none() && tree.members("a/b", "g").is_none());
        for number in 0..3 {
            assert!(tree.unsubscribe("a/+", Some("g"), SessionId::numbered(number)));
        }
        assert!(tree.is_empty());
    }
}
