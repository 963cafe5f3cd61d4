//! The tree against a plain map and the naive matcher, and its invariants after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::naive;

/// Fails if one of the invariants in the head of this module's parent does not hold, or if
/// anything is left over that no path leads to.
fn check<V: Default>(tree: &FilterTree<V>) {
    let mut values = BTreeSet::new();
    let mut edges = BTreeSet::new();
    let mut children = BTreeMap::<u32, u32>::new();
    let used = tree.nodes.used().collect::<Vec<_>>();
    for &id in &used {
        let node = &tree.nodes[id];
        for value in [node.exact, node.below] {
            assert!(value == NONE || values.insert(value), "a value twice");
        }
        let label = tree.nodes.label(id);
        assert!(label.split(|&b| b == b'/').all(|level| level != b"#"));
        if id == ROOT {
            assert_eq!((node.parent, node.exact), (NONE, NONE));
            continue;
        }
        let level = first_level(label);
        assert!(used.contains(&node.parent));
        assert!(edges.insert((node.parent, level)), "a level twice");
        assert_eq!(tree.nodes.child(node.parent, level), Some(id));
        *children.entry(node.parent).or_default() += 1;
    }
    for &id in &used {
        let node = &tree.nodes[id];
        let count = children.get(&id).copied().unwrap_or(0);
        assert_eq!(node.literals + u32::from(node.plus != NONE), count);
        let needed = id == ROOT || node.exact != NONE || node.below != NONE || count >= 2;
        assert!(needed, "node {id} serves nothing");
    }
    assert_eq!(values.len(), tree.len());
    assert_eq!(values.len(), tree.values.used());
    assert!(used.len() <= 1 + 2 * tree.len(), "two nodes a filter");
    tree.nodes.check();
}

fn matching<V: Default + Clone + Ord>(tree: &FilterTree<V>, topic: &str) -> Vec<V> {
    let mut found = Vec::new();
    tree.for_each_match(topic, |value| found.push(value.clone()));
    found.sort();
    found
}

/// A tree in which the value of each filter is the filter.
fn tree_of(filters: &[&str]) -> FilterTree<String> {
    let mut tree = FilterTree::new();
    for filter in filters {
        *tree.get_or_insert(filter) = (*filter).to_owned();
        check(&tree);
    }
    tree
}

#[test]
fn an_empty_tree_matches_nothing() {
    let mut tree = FilterTree::<u32>::new();
    check(&tree);
    assert!(tree.is_empty());
    assert_eq!(tree.get("a"), None);
    assert_eq!(tree.remove("#"), None);
    assert_eq!(matching(&tree, "a/b"), []);
    assert_eq!(tree.iter().count(), 0);
}

#[test]
fn all_kinds_of_filters_are_found() {
    let tree = tree_of(&[
        "#", "+", "a", "a/#", "a/+", "a/b", "+/b", "+/+", "a/b/#", "a/b/c", "/", "/#", "+/#", "b",
    ]);
    assert_eq!(
        matching(&tree, "a/b"),
        ["#", "+/#", "+/+", "+/b", "a/#", "a/+", "a/b", "a/b/#"]
    );
    assert_eq!(matching(&tree, "a"), ["#", "+", "+/#", "a", "a/#"]);
    assert_eq!(matching(&tree, "/"), ["#", "+/#", "+/+", "/", "/#"]);
    assert_eq!(matching(&tree, "$b"), [""; 0]);
}

#[test]
fn wildcards_at_the_start_do_not_see_dollar_topics() {
    let tree = tree_of(&["#", "+/#", "+/b", "$a/#", "$a/+", "$a", "$/b", "a/+"]);
    assert_eq!(matching(&tree, "$a/b"), ["$a/#", "$a/+"]);
    assert_eq!(matching(&tree, "$a"), ["$a", "$a/#"]);
    assert_eq!(matching(&tree, "$/b"), ["$/b"]);
    assert_eq!(matching(&tree, "a/$b"), ["#", "+/#", "a/+"]);
}

#[test]
fn a_prefix_of_a_level_is_another_level() {
    let tree = tree_of(&["a/bc/d", "a/b/d", "a/b", "ab/c"]);
    assert_eq!(matching(&tree, "a/b/d"), ["a/b/d"]);
    assert_eq!(matching(&tree, "a/bc/d"), ["a/bc/d"]);
    assert_eq!(matching(&tree, "a/bc"), [""; 0]);
    assert_eq!(matching(&tree, "ab/c"), ["ab/c"]);
}

#[test]
fn get_is_exact_and_remove_takes_one_filter_only() {
    let mut tree = tree_of(&["a/+/c", "a/+", "a/#", "a"]);
    assert_eq!(tree.get("a/b"), None);
    assert_eq!(tree.get("a/+").map(String::as_str), Some("a/+"));
    assert_eq!(tree.get("a/+/#"), None);
    tree.get_mut("a/+").expect("it is there").push('!');
    assert_eq!(tree.remove("a/+").as_deref(), Some("a/+!"));
    assert_eq!(tree.remove("a/+"), None);
    check(&tree);
    assert_eq!(tree.len(), 3);
    assert_eq!(matching(&tree, "a/b"), ["a/#"]);
    assert_eq!(matching(&tree, "a/b/c"), ["a/#", "a/+/c"]);
}

#[test]
fn a_removed_value_does_not_come_back() {
    let mut tree = tree_of(&["a", "b"]);
    assert_eq!(tree.remove("a").as_deref(), Some("a"));
    assert_eq!(tree.get_or_insert("c"), "");
}

#[test]
fn nodes_are_merged_again_and_an_emptied_tree_is_as_new() {
    let mut tree = tree_of(&["a/b/c/+", "a/b/d/+"]);
    assert_eq!(tree.nodes.used().count(), 4);
    tree.remove("a/b/d/+");
    check(&tree);
    assert_eq!(tree.nodes.used().count(), 2);
    tree.remove("a/b/c/+");
    check(&tree);
    assert_eq!(tree.nodes.places(), 1);
}

#[test]
fn many_children_of_one_node_are_found_while_the_table_grows_and_after_removals() {
    let name = |n: u32| format!("devices/{n}/commands/+");
    let mut tree = FilterTree::new();
    for n in 0..3_000 {
        *tree.get_or_insert(&name(n)) = n;
        // The latest, and one that was moved to a new bucket meanwhile, or was not.
        for n in [n, n / 2] {
            assert_eq!(matching(&tree, &format!("devices/{n}/commands/on")), [n]);
        }
    }
    check_counts(&tree, 3_000);
    for n in (0..3_000).step_by(3) {
        assert_eq!(tree.remove(&name(n)), Some(n));
    }
    check_counts(&tree, 2_000);
    for n in 0..3_000 {
        let expected = (n % 3 != 0).then_some(n);
        assert_eq!(tree.get(&name(n)).copied(), expected);
    }
}

fn check_counts(tree: &FilterTree<u32>, filters: usize) {
    assert_eq!(tree.len(), filters);
    assert_eq!(tree.iter().count(), filters);
    assert_eq!(
        tree.nodes.used().count(),
        filters + 2,
        "the root, `devices` and a leaf each"
    );
    tree.nodes.check();
}

#[test]
fn the_deepest_filters_work() {
    let deep = vec!["+"; crate::LEVELS_MAX].join("/");
    let mut filters = vec![deep.clone()];
    // A node at every level: the longest recursion there is.
    filters.extend((0..crate::LEVELS_MAX - 1).map(|n| format!("{}/#", vec!["+"; n + 1].join("/"))));
    let tree = tree_of(&filters.iter().map(String::as_str).collect::<Vec<_>>());
    let topic = vec!["x"; crate::LEVELS_MAX].join("/");
    assert_eq!(matching(&tree, &topic).len(), crate::LEVELS_MAX);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(String),
    Remove(String),
    Match(String),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => naive::filter().prop_map(Step::Insert),
        30 => naive::filter().prop_map(Step::Remove),
        30 => naive::topic().prop_map(Step::Match),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #[test]
    fn finds_what_the_naive_matcher_finds(
        filters in prop::collection::btree_set(naive::filter(), 0..60),
        topics in prop::collection::vec(naive::topic(), 1..20),
    ) {
        let mut tree = FilterTree::<String>::new();
        for filter in &filters {
            *tree.get_or_insert(filter) = filter.clone();
        }
        check(&tree);
        for topic in &topics {
            let expected = filters.iter().filter(|filter| naive::matches(filter, topic));
            prop_assert_eq!(matching(&tree, topic), expected.cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn any_history_leaves_what_a_map_would_hold(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut tree = FilterTree::<usize>::new();
        let mut map = BTreeMap::<String, usize>::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(filter) => {
                    let entry = map.entry(filter.clone()).or_default();
                    prop_assert_eq!(*entry, *tree.get_or_insert(&filter));
                    *entry = number;
                    *tree.get_mut(&filter).expect("just inserted") = number;
                }
                Step::Remove(filter) => {
                    prop_assert_eq!(map.remove(&filter), tree.remove(&filter));
                }
                Step::Match(topic) => {
                    let mut expected = map
                        .iter()
                        .filter(|(filter, _)| naive::matches(filter, &topic))
                        .map(|(_, &value)| value)
                        .collect::<Vec<_>>();
                    expected.sort();
                    prop_assert_eq!(matching(&tree, &topic), expected);
                }
                Step::Clear => {
                    for (filter, value) in std::mem::take(&mut map) {
                        prop_assert_eq!(tree.remove(&filter), Some(value));
                        check(&tree);
                    }
                }
            }
            check(&tree);
            for (filter, value) in &map {
                prop_assert_eq!(tree.get(filter), Some(value));
            }
        }
        let listed = tree.iter().map(|(filter, &value)| (filter, value));
        prop_assert_eq!(listed.collect::<BTreeMap<_, _>>(), map.clone());
        for filter in map.keys() {
            tree.remove(filter);
        }
        prop_assert_eq!(tree.nodes.places(), 1);
    }
}
