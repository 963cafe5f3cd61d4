//! The filter tree: which of many filters match a topic.
//!
//! A radix tree whose letters are levels. An edge carries one or more whole levels, so a filter
//! adds at most two nodes however deep it is, and `devices/{id}/commands/+` for a million devices
//! is a million nodes and not three million. `#` is no node but a second value of the node before
//! it, which is also the rule that `sport/#` matches `sport`.
//!
//! A lookup follows at each node the child named like the topic's next level and the `+` child.
//! It costs the topic's depth where filters do not overlap, and at most the number of nodes that
//! match a beginning of the topic; filters that differ from the topic cost nothing, however many.
//!
//! Invariants, checked by the tests after every operation:
//! - a node other than the root has a value or at least two children;
//! - no two children of a node start with the same level;
//! - no label contains the level `#`.

mod label;
mod nodes;

use std::fmt;

use crate::matching::hidden_from_wildcards;
use crate::slab::Slab;
use nodes::{NONE, Nodes, ROOT, first_level};

/// A map from topic filters to values that finds all values whose filter matches a topic.
///
/// Filters must be valid ([`validate_filter`](crate::validate_filter)): the tree stores what it is
/// given, and what an invalid filter matches is not defined. `$share/…` is not known to it.
pub struct FilterTree<V> {
    nodes: Nodes,
    values: Slab<V>,
    len: usize,
}

/// Where the value of a filter is: the node of the filter without its `#`, and which of the node's
/// two values it is.
#[derive(Clone, Copy)]
struct Place {
    node: u32,
    below: bool,
}

impl<V: Default> FilterTree<V> {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: Nodes::new(),
            values: Slab::new(),
            len: 0,
        }
    }

    /// The number of filters that have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no filter has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of exactly this filter; nothing is matched.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&V> {
        let value = self.value_at(self.find(filter)?);
        (value != NONE).then(|| &self.values[value])
    }

    /// As [`FilterTree::get`], to change the value.
    #[must_use]
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let value = self.value_at(self.find(filter)?);
        (value != NONE).then(|| &mut self.values[value])
    }

    /// The value of exactly this filter, which is `V::default()` if it had none.
    ///
    /// # Panics
    ///
    /// If the tree has 2^32 - 1 nodes. Callers bound their filters long before, for they take some
    /// 60 bytes each.
    pub fn get_or_insert(&mut self, filter: &str) -> &mut V {
        let place = self.find_or_create(filter);
        let mut value = self.value_at(place);
        if value == NONE {
            value = self.values.insert(V::default());
            *self.value_at_mut(place) = value;
            self.len += 1;
        }
        &mut self.values[value]
    }

    /// Takes the value of exactly this filter, and the nodes that nothing else needs.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        let place = self.find(filter)?;
        let value = std::mem::replace(self.value_at_mut(place), NONE);
        if value == NONE {
            return None;
        }
        let value = self.values.remove(value);
        self.len -= 1;
        if self.len == 0 {
            self.nodes.clear();
            self.values.clear();
        } else {
            self.prune(place.node);
        }
        Some(value)
    }

    /// Calls `f` with the value of every filter that matches the valid topic name `topic`, in no
    /// particular order.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut f: impl FnMut(&'a V)) {
        let hidden = hidden_from_wildcards(topic);
        let topic = topic.as_bytes();
        if hidden {
            // Neither `#` nor `+` at the root [MQTT-4.7.2-1].
            if let Some((child, rest)) = self.literal_step(ROOT, first_level(topic), topic) {
                self.walk(child, rest, &mut f);
            }
        } else {
            self.walk(ROOT, Some(topic), &mut f);
        }
    }

    /// All filters with their values, in no particular order.
    pub fn iter(&self) -> Iter<'_, V> {
        Iter {
            tree: self,
            node: ROOT,
            below: false,
        }
    }

    /// Reports the matches at and below a node. `rest` is what follows of the topic after the
    /// levels that led here; `None` if that was all.
    fn walk<'a>(&'a self, mut id: u32, mut rest: Option<&[u8]>, f: &mut impl FnMut(&'a V)) {
        loop {
            let node = &self.nodes[id];
            if node.below != NONE {
                f(&self.values[node.below]);
            }
            let Some(topic) = rest else {
                if node.exact != NONE {
                    f(&self.values[node.exact]);
                }
                return;
            };
            let level = first_level(topic);
            if node.plus != NONE
                && let Some(rest) = follow(self.nodes.label(node.plus), b"+", level, topic)
            {
                // As deep as the topic has levels; valid topics have few.
                self.walk(node.plus, rest, f);
            }
            match self.literal_step(id, level, topic) {
                Some(step) => (id, rest) = step,
                None => return,
            }
        }
    }

    /// The child to which `level`, the first of `topic`, leads literally, and what follows of the
    /// topic after the child's label.
    fn literal_step<'t>(
        &self,
        id: u32,
        level: &[u8],
        topic: &'t [u8],
    ) -> Option<(u32, Option<&'t [u8]>)> {
        let child = self.nodes.literal(id, level)?;
        let label = self.nodes.label(child);
        Some((child, follow(label, level, level, topic)?))
    }

    /// The filter of a place, put together again from the labels above it.
    fn filter_of(&self, place: Place) -> String {
        let mut labels = Vec::new();
        let mut id = place.node;
        while id != ROOT {
            labels.push(self.nodes.label(id));
            id = self.nodes[id].parent;
        }
        labels.reverse();
        if place.below {
            labels.push(b"#");
        }
        String::from_utf8(labels.join(&b'/')).expect("labels are cut at separators only")
    }

    fn value_at(&self, place: Place) -> u32 {
        let node = &self.nodes[place.node];
        if place.below { node.below } else { node.exact }
    }

    fn value_at_mut(&mut self, place: Place) -> &mut u32 {
        let node = &mut self.nodes[place.node];
        if place.below {
            &mut node.below
        } else {
            &mut node.exact
        }
    }

    fn find(&self, filter: &str) -> Option<Place> {
        let (mut rest, below) = split_hash(filter);
        let mut node = ROOT;
        while let Some(path) = rest {
            node = self.nodes.child(node, first_level(path))?;
            let label = self.nodes.label(node);
            let common = common_levels(label, path);
            if common < label.len() {
                return None;
            }
            rest = path.get(common + 1..);
        }
        Some(Place { node, below })
    }

    fn find_or_create(&mut self, filter: &str) -> Place {
        let (mut rest, below) = split_hash(filter);
        let mut node = ROOT;
        while let Some(path) = rest {
            let Some(child) = self.nodes.child(node, first_level(path)) else {
                let leaf = self.nodes.create(path);
                self.nodes.attach(leaf, node);
                node = leaf;
                break;
            };
            let label = self.nodes.label(child);
            let common = common_levels(label, path);
            node = if common < label.len() {
                self.split(child, common)
            } else {
                child
            };
            rest = path.get(common + 1..);
        }
        Place { node, below }
    }

    /// Puts a node between `id` and its parent that takes the first `at` bytes of the label. Those
    /// are whole levels, and not all of them.
    fn split(&mut self, id: u32, at: usize) -> u32 {
        let parent = self.nodes[id].parent;
        self.nodes.detach(id);
        let label = self.nodes.label(id).to_vec();
        let upper = self.nodes.create(&label[..at]);
        self.nodes.attach(upper, parent);
        self.nodes.relabel(id, &label[at + 1..]);
        self.nodes.attach(id, upper);
        upper
    }

    /// Restores the first invariant for `id`, which lost a value, and for its parent.
    fn prune(&mut self, mut id: u32) {
        loop {
            let node = &self.nodes[id];
            if id == ROOT || node.exact != NONE || node.below != NONE {
                return;
            }
            let parent = node.parent;
            if let Some(child) = self.nodes.only_child(id) {
                let mut label = self.nodes.label(id).to_vec();
                label.push(b'/');
                label.extend_from_slice(self.nodes.label(child));
                self.nodes.detach(child);
                self.nodes.detach(id);
                self.nodes.relabel(child, &label);
                self.nodes.attach(child, parent);
                self.nodes.destroy(id);
                return;
            }
            if node.literals > 0 {
                return;
            }
            self.nodes.detach(id);
            self.nodes.destroy(id);
            id = parent;
        }
    }
}

impl<V: Default> Default for FilterTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Default + fmt::Debug> fmt::Debug for FilterTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, V: Default> IntoIterator for &'a FilterTree<V> {
    type Item = (String, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

/// The iterator of [`FilterTree::iter`].
pub struct Iter<'a, V> {
    tree: &'a FilterTree<V>,
    /// The place to look at next.
    node: u32,
    below: bool,
}

impl<'a, V: Default> Iterator for Iter<'a, V> {
    type Item = (String, &'a V);

    fn next(&mut self) -> Option<(String, &'a V)> {
        while (self.node as usize) < self.tree.nodes.places() {
            let place = Place {
                node: self.node,
                below: self.below,
            };
            self.node += u32::from(self.below);
            self.below = !self.below;
            let value = self.tree.value_at(place);
            if value != NONE {
                return Some((self.tree.filter_of(place), &self.tree.values[value]));
            }
        }
        None
    }
}

/// The filter without a last level `#`, and whether there was one. `None` if there is nothing else.
fn split_hash(filter: &str) -> (Option<&[u8]>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(path) => (Some(path.as_bytes()), true),
        None => (Some(filter.as_bytes()), false),
    }
}

/// How many bytes of `label` are levels with which `path` starts too, of which there is at least
/// one. A separator after them does not count.
fn common_levels(label: &[u8], path: &[u8]) -> usize {
    let equal = label.iter().zip(path).take_while(|(a, b)| a == b).count();
    let ends = |text: &[u8]| matches!(text.get(equal), None | Some(b'/'));
    if ends(label) && ends(path) {
        return equal;
    }
    let separator = label[..equal].iter().rposition(|&byte| byte == b'/');
    debug_assert!(separator.is_some(), "the first levels are equal");
    separator.unwrap_or(0)
}

/// What follows of `topic` after its first levels matched all levels of `label`: `Some(None)` if
/// nothing follows, `None` if they do not match. That the label's first level, `wanted`, matches
/// the topic's first level, `level`, is known already.
fn follow<'t>(
    label: &[u8],
    wanted: &[u8],
    level: &[u8],
    topic: &'t [u8],
) -> Option<Option<&'t [u8]>> {
    let mut label = label.get(wanted.len() + 1..);
    let mut rest = topic.get(level.len() + 1..);
    while let Some(text) = label {
        let topic = rest?;
        let (wanted, level) = (first_level(text), first_level(topic));
        if wanted != b"+" && wanted != level {
            return None;
        }
        label = text.get(wanted.len() + 1..);
        rest = topic.get(level.len() + 1..);
    }
    Some(rest)
}

#[cfg(test)]
mod tests;
