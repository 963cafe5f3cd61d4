//! The nodes of the tree, their labels, and the way from a node to its child.
//!
//! This file stores and links; what a node means and when it is split, merged or removed is decided
//! in [`tree`](super).
//!
//! A node has no table of children. One hash table serves the whole tree: the children that start
//! with a literal level are found by (parent, level). A table per node would cost an idle node more
//! than the node itself, and a sorted array per node would make the insertion into a node of a
//! million children (`devices/{device}/…`) cost a megabyte of moving. The table is one `u32` a
//! bucket, chained through the nodes, and grows by **linear hashing**: one bucket is split for each
//! node that comes, so there is no insertion that rehashes everything while publishers wait.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::label::Label;
use crate::slab::Slab;

/// No node, no value.
pub(super) const NONE: u32 = u32::MAX;

/// The node of the empty path, from which `#` hangs. It is always there and has no label.
pub(super) const ROOT: u32 = 0;

/// Buckets of a tree's first table; a power of two.
const BUCKETS_MIN: usize = 16;

/// The bits of a hash that are used. So few in tests that different children have equal hashes, which
/// one could otherwise wait long for.
const HASH_MASK: u32 = if cfg!(test) { 0x3ff } else { u32::MAX };

/// A path from the root ends here: its levels are the labels from the root to this node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u32,
    /// The child whose label starts with the level `+`.
    pub(super) plus: u32,
    /// The number of the other children.
    pub(super) literals: u32,
    /// The exclusive or of the other children's indices: the index itself if there is one only.
    literals_xor: u32,
    /// The value of the filter that is exactly this path.
    pub(super) exact: u32,
    /// The value of the filter that is this path and `/#`.
    pub(super) below: u32,
    /// The next node in the same bucket.
    next: u32,
    /// What the bucket was chosen by. Kept so that a lookup passes over the other nodes of a bucket,
    /// and a growing table moves nodes, without a look at their labels.
    hash: u32,
    label: Label,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            parent: NONE,
            plus: NONE,
            literals: 0,
            literals_xor: 0,
            exact: NONE,
            below: NONE,
            next: NONE,
            hash: 0,
            label: Label::default(),
        }
    }
}

/// All nodes of a tree and the table of their children.
#[derive(Debug)]
pub(super) struct Nodes {
    slab: Slab<Node>,
    /// The first node of each bucket. Empty until the first literal child comes.
    buckets: Vec<u32>,
    /// The number of nodes in the buckets.
    linked: usize,
    /// Filters are chosen by clients, hostile ones too: without a secret they could choose a million
    /// that share one bucket.
    secret: RandomState,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let mut nodes = Self {
            slab: Slab::new(),
            buckets: Vec::new(),
            linked: 0,
            secret: RandomState::new(),
        };
        nodes.clear();
        nodes
    }

    /// Back to the root alone; gives the memory back.
    pub(super) fn clear(&mut self) {
        self.slab.clear();
        self.buckets = Vec::new();
        self.linked = 0;
        let root = self.slab.insert(Node::default());
        debug_assert_eq!(root, ROOT);
    }

    /// Indices of nodes are below this.
    pub(super) fn places(&self) -> usize {
        self.slab.places()
    }

    /// A new node with this label and nothing else, not yet anybody's child.
    pub(super) fn create(&mut self, label: &[u8]) -> u32 {
        self.slab.insert(Node {
            label: Label::new(label),
            ..Node::default()
        })
    }

    /// Frees a node without values and children that is nobody's child.
    pub(super) fn destroy(&mut self, id: u32) {
        self.slab.remove(id);
    }

    /// The levels between the parent and this node, joined by `/`. They are never `#`. The root's
    /// label is empty and means nothing; any other empty label is one empty level.
    pub(super) fn label(&self, id: u32) -> &[u8] {
        self.slab[id].label.text()
    }

    /// Gives a node that is nobody's child another label. Its own children stay its children.
    pub(super) fn relabel(&mut self, id: u32, label: &[u8]) {
        self.slab[id].label = Label::new(label);
    }

    /// Makes `id`, which is nobody's child, a child of `parent`. There must be no child that starts
    /// with the same level.
    pub(super) fn attach(&mut self, id: u32, parent: u32) {
        let level = first_level(self.label(id));
        if level == b"+" {
            self.slab[id].parent = parent;
            self.slab[parent].plus = id;
            return;
        }
        let hash = self.hash(parent, level);
        let node = &mut self.slab[parent];
        node.literals += 1;
        node.literals_xor ^= id;
        self.grow();
        let bucket = self.bucket(hash);
        let next = std::mem::replace(&mut self.buckets[bucket], id);
        let node = &mut self.slab[id];
        (node.parent, node.next, node.hash) = (parent, next, hash);
        self.linked += 1;
    }

    /// Makes `id` nobody's child.
    pub(super) fn detach(&mut self, id: u32) {
        let parent = self.slab[id].parent;
        self.slab[id].parent = NONE;
        if self.slab[parent].plus == id {
            self.slab[parent].plus = NONE;
            return;
        }
        let node = &mut self.slab[parent];
        node.literals -= 1;
        node.literals_xor ^= id;
        let after = std::mem::replace(&mut self.slab[id].next, NONE);
        let bucket = self.bucket(self.slab[id].hash);
        if self.buckets[bucket] == id {
            self.buckets[bucket] = after;
        } else {
            let mut before = self.buckets[bucket];
            while self.slab[before].next != id {
                before = self.slab[before].next;
            }
            self.slab[before].next = after;
        }
        self.linked -= 1;
    }

    /// The child of `parent` whose label starts with the literal `level`.
    pub(super) fn literal(&self, parent: u32, level: &[u8]) -> Option<u32> {
        if self.slab[parent].literals == 0 {
            return None;
        }
        let hash = self.hash(parent, level);
        let mut id = self.buckets[self.bucket(hash)];
        while id != NONE {
            let node = &self.slab[id];
            if node.hash == hash
                && node.parent == parent
                && starts_with_level(node.label.text(), level)
            {
                return Some(id);
            }
            id = node.next;
        }
        None
    }

    /// The child of `parent` whose label starts with `level`, be it `+` or literal.
    pub(super) fn child(&self, parent: u32, level: &[u8]) -> Option<u32> {
        if level == b"+" {
            Some(self.slab[parent].plus).filter(|&id| id != NONE)
        } else {
            self.literal(parent, level)
        }
    }

    /// The only child of `id`, if it has exactly one.
    pub(super) fn only_child(&self, id: u32) -> Option<u32> {
        let node = &self.slab[id];
        match (node.literals, node.plus) {
            (1, NONE) => Some(node.literals_xor),
            (0, plus) if plus != NONE => Some(plus),
            _ => None,
        }
    }

    /// What the child of `parent` that starts with the literal `level` is found by.
    fn hash(&self, parent: u32, level: &[u8]) -> u32 {
        let mut hasher = self.secret.build_hasher();
        hasher.write_u32(parent);
        hasher.write(level);
        hasher.finish() as u32 & HASH_MASK
    }

    /// The bucket of a hash.
    fn bucket(&self, hash: u32) -> usize {
        let hash = hash as usize;
        let buckets = self.buckets.len();
        let mask = buckets.next_power_of_two() - 1;
        // Buckets that the current doubling has not reached yet are still within their lower half.
        match hash & mask {
            bucket if bucket < buckets => bucket,
            bucket => bucket & (mask >> 1),
        }
    }

    /// The nodes that are in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> impl Iterator<Item = u32> {
        (0..self.places() as u32).filter(|&id| id == ROOT || self.slab[id].parent != NONE)
    }

    /// Fails if the table or the labels disagree with the nodes.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut seen = std::collections::BTreeSet::new();
        for (bucket, &first) in self.buckets.iter().enumerate() {
            let mut id = first;
            while id != NONE {
                assert!(seen.insert(id), "in two buckets");
                let hash = self.hash(self.slab[id].parent, first_level(self.label(id)));
                assert_eq!((hash, self.bucket(hash)), (self.slab[id].hash, bucket));
                id = self.slab[id].next;
            }
        }
        let literals = self.used().map(|id| self.slab[id].literals as usize);
        assert_eq!(seen.len(), literals.sum::<usize>());
        assert_eq!(seen.len(), self.linked);
        assert!(self.linked <= self.buckets.len());
        assert_eq!(self.slab.used(), self.used().count(), "a node leaked");
    }

    /// Keeps one bucket a node: adds a bucket and moves to it what is no longer its lower half's.
    fn grow(&mut self) {
        if self.linked < self.buckets.len() {
            return;
        }
        if self.buckets.is_empty() {
            self.buckets = vec![NONE; BUCKETS_MIN];
            return;
        }
        let added = self.buckets.len();
        let split = added - (added + 1).next_power_of_two() / 2;
        self.buckets.push(NONE);
        let mut id = std::mem::replace(&mut self.buckets[split], NONE);
        while id != NONE {
            let bucket = self.bucket(self.slab[id].hash);
            debug_assert!(bucket == added || bucket == split);
            let next = std::mem::replace(&mut self.slab[id].next, self.buckets[bucket]);
            self.buckets[bucket] = id;
            id = next;
        }
    }
}

impl std::ops::Index<u32> for Nodes {
    type Output = Node;

    fn index(&self, id: u32) -> &Node {
        &self.slab[id]
    }
}

impl std::ops::IndexMut<u32> for Nodes {
    fn index_mut(&mut self, id: u32) -> &mut Node {
        &mut self.slab[id]
    }
}

/// The text before the first `/`.
pub(super) fn first_level(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|&byte| byte == b'/');
    &path[..end.unwrap_or(path.len())]
}

/// Whether `level`, which has no `/`, is the first level of `path`.
fn starts_with_level(path: &[u8], level: &[u8]) -> bool {
    path.starts_with(level) && matches!(path.get(level.len()), None | Some(b'/'))
}
