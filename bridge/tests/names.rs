//! A node's name is one node's: the second is refused, and the name is free when the first has ended, however that was.

mod common;

use std::time::Duration;

use bridge::Config;
use common::{DEADLINE, Node, config, unique, wait_for};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use testkit::kafka::Kafka;

fn start_error(config: &Config) -> String {
    match Node::try_start(config) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

/// A member of the name's group, as a node of another machine would be.
fn member(config: &Config, description: &str) -> BaseConsumer {
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.kafka)
        .set("group.id", format!("millstream-node-{}", config.node))
        .set("client.id", description)
        .set("session.timeout.ms", "6000")
        .create()
        .unwrap();
    member.subscribe(&[&config.downlink.topic]).unwrap();
    wait_for("the other machine's node is a member", || {
        drop(member.poll(Duration::from_millis(10)));
        members(config) == 1
    });
    member
}

fn members(config: &Config) -> usize {
    let asking: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.kafka)
        .set("group.id", "nobody")
        .create()
        .unwrap();
    let group = format!("millstream-node-{}", config.node);
    let groups = asking.fetch_group_list(Some(&group), DEADLINE).unwrap();
    let members = groups.groups().iter().map(|group| group.members().len());
    members.sum()
}

#[test]
fn a_second_node_of_one_name_is_refused_until_the_first_has_ended() {
    let first_config = config(Kafka::shared().bootstrap());
    let first = Node::start(&first_config);
    wait_for("the first node holds its name", || {
        members(&first_config) == 1
    });
    // The same name is all that they share.
    let second_config = Config {
        node: first_config.node.clone(),
        ..config(Kafka::shared().bootstrap())
    };
    let error = start_error(&second_config);
    for part in [
        first_config.node.as_str(),
        "bridge.node",
        &format!("process {} on this machine", std::process::id()),
    ] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert_eq!(first.status().problems, [""; 0]);
    first.stop();
    Node::start(&second_config).stop();
}

#[test]
fn the_name_of_a_node_that_was_killed_here_is_free_at_once_and_elsewhere_when_kafka_has_noticed() {
    let config = Config {
        node: unique("killed"),
        ..config(Kafka::shared().bootstrap())
    };
    // The topics have to be there.
    Node::start(&config).stop();

    // A process of this machine that has ended: no process has this number and this time of birth.
    let here = member(&config, &description_of_a_dead_process());
    let node = Node::start(&config);
    assert_eq!(node.status().problems, [""; 0]);
    node.stop();
    drop(here);

    // A node elsewhere that lives on.
    let elsewhere = "millstream-node/1/0/7/99/00000000.1/elsewhere";
    let other = member(&config, elsewhere);
    let living = std::thread::scope(|scope| {
        let refused = scope.spawn(|| start_error(&config));
        while !refused.is_finished() {
            drop(other.poll(Duration::from_millis(50)));
        }
        refused.join().unwrap()
    });
    assert!(living.contains("process 7 on elsewhere"), "{living}");
}

#[test]
fn two_nodes_that_started_in_one_moment_say_so() {
    let config = Config {
        node: unique("twice"),
        ..config(Kafka::shared().bootstrap())
    };
    let node = Node::start(&config);
    wait_for("it holds its name", || members(&config) == 1);
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.kafka)
        .set("group.id", format!("millstream-node-{}", config.node))
        .set("client.id", "millstream-node/1/0/7/99/00000000.1/elsewhere")
        .create()
        .unwrap();
    other.subscribe(&[&config.downlink.topic]).unwrap();
    wait_for("the node says that another one has its name", || {
        drop(other.poll(Duration::from_millis(10)));
        let problems = node.status().problems;
        problems.len() == 1
            && problems[0].contains(&config.node)
            && problems[0].contains("process 7 on elsewhere")
    });
    drop(other);
    wait_for("the node is alone again", || {
        node.status().problems.is_empty()
    });
    node.stop();
}

/// As a killed node of this machine would have described itself.
fn description_of_a_dead_process() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let namespace = namespace.to_string_lossy();
    let namespace = namespace.trim_start_matches("pid:[").trim_end_matches(']');
    format!(
        "millstream-node/1/0/{}/1/{}.{namespace}/here",
        std::process::id(),
        boot.trim()
    )
}
