//! Reports of what became of downlink records: what waits is reported to wait and later where it ended, each node reports for
//! itself, Kafka has a report before the position moves, and only who asks is told.

mod common;

use std::time::Duration;

use bridge::Config;
use broker::codec::{Qos, Version};
use common::mqtt::Client;
use common::{Node, config, log, unique, wait_for};
use envelope::Downlink;
use envelope::report::{Outcome, Report};
use testkit::kafka::Kafka;

fn command(device: &str, correlation: &str, expiry_s: u32) -> Downlink {
    Downlink::new(format!("devices/{device}/commands"), correlation)
        .qos(1)
        .message_expiry_s(expiry_s)
        .report(correlation)
}

/// A device, whose session outlives its connection.
fn device(node: &Node, name: &str) -> Client {
    let mut client = Client::connect(node.address, Version::V5, name);
    client.subscribe(&format!("devices/{name}/commands"), Qos::AtLeastOnce);
    client
}

/// All reports in the order in which they came: what they are about, and what they say.
fn reports(config: &Config) -> Vec<(String, Outcome)> {
    let of_all = all_reports(config).into_iter();
    of_all
        .map(|report| (report.report, report.outcome))
        .collect()
}

fn all_reports(config: &Config) -> Vec<Report> {
    let records = log::read_all(&config.kafka, &config.downlink.reports_topic);
    let mut reports: Vec<Report> = records
        .iter()
        .map(|record| {
            let report = Report::parse(record.payload.as_deref().unwrap()).unwrap();
            assert_eq!(record.key.as_deref(), Some(report.topic.as_bytes()));
            report
        })
        .collect();
    reports.sort_by_key(|report| report.at);
    reports
}

/// Waits for the reports about one record.
fn until(config: &Config, correlation: &str, expected: &[Outcome]) {
    wait_for(
        &format!("{correlation} is reported as {expected:?}"),
        || {
            let of_it = reports(config).into_iter();
            of_it
                .filter(|(of, _)| of == correlation)
                .map(|(_, outcome)| outcome)
                .eq(expected.iter().copied())
        },
    );
}

#[test]
fn a_report_says_where_a_message_waits_and_then_how_that_ended() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    config.partitions = 1;
    let node = Node::start(&config);
    let append = |messages: &[Downlink]| log::append(kafka, &config.downlink.topic, messages);

    let mut here = device(&node, "here");
    append(&[command("here", "c-1", 300)]);
    here.message();
    until(&config, "c-1", &[Outcome::Delivered]);

    drop(device(&node, "away"));
    wait_for("it is away", || node.counters().clients == 1);
    append(&[
        command("away", "c-2", 300),
        command("away", "c-3", 1),
        command("nobody", "c-4", 1),
        command("late", "c-5", 300),
        Downlink::new("devices/nobody/state", "x").report("c-6"),
        Downlink::new("devices/+/state", "x").report("c-7"),
        Downlink::new("devices/here/commands", "nobody asks").qos(1),
    ]);
    until(&config, "c-3", &[Outcome::Queued, Outcome::Expired]);
    until(&config, "c-4", &[Outcome::Waiting, Outcome::Expired]);
    until(&config, "c-6", &[Outcome::NoSession]);
    until(&config, "c-7", &[Outcome::Malformed]);
    until(&config, "c-5", &[Outcome::Waiting]);
    until(&config, "c-2", &[Outcome::Queued]);
    Client::connect(node.address, Version::V5, "away").message();
    until(&config, "c-2", &[Outcome::Queued, Outcome::Delivered]);
    device(&node, "late").message();
    until(&config, "c-5", &[Outcome::Waiting, Outcome::Delivered]);

    let all = all_reports(&config);
    let first = &all[0];
    assert_eq!((first.sessions, &first.node), (1, &config.node));
    assert_eq!(first.topic, "devices/here/commands");
    let origin = &first.origin;
    assert_eq!(
        (&origin.topic, origin.partition, origin.offset),
        (&config.downlink.topic, 0, 0)
    );
    assert_eq!(all.len(), 11, "nobody else is told of: {all:?}");
    wait_for("it counts them", || node.status().downlink.reported == 11);
    assert_eq!(node.status().downlink.reports_lost, 0);
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_is_held_is_reported_once_across_a_restart_and_each_node_reports_for_itself() {
    let kafka = Kafka::shared().bootstrap();
    let config = config(kafka);
    let node = Node::start(&config);
    let mut other = config.clone();
    other.node = unique("other");
    let other = Node::start(&other);
    let mut there = device(&other, "d");
    log::append(kafka, &config.downlink.topic, &[command("d", "c-1", 300)]);
    there.message();
    wait_for("both have reported", || reports(&config).len() == 2);
    let mut outcomes: Vec<_> = all_reports(&config)
        .into_iter()
        .map(|report| (report.outcome, report.node == config.node))
        .collect();
    outcomes.sort();
    assert_eq!(
        outcomes,
        [(Outcome::Waiting, true), (Outcome::Delivered, false)]
    );
    assert_eq!(node.stop(), 0);
    let node = Node::start(&config);
    wait_for("it holds it again", || node.status().downlink.held == 1);
    drop(there);
    device(&node, "d").message();
    wait_for("it has reported that, too", || reports(&config).len() >= 3);
    let of_node = all_reports(&config).into_iter();
    let of_node: Vec<_> = of_node
        .filter(|report| report.node == config.node)
        .map(|report| report.outcome)
        .collect();
    assert_eq!(of_node, [Outcome::Waiting, Outcome::Delivered]);
}

#[test]
fn the_position_waits_for_the_reports_and_a_lost_one_is_a_problem() {
    let kafka = Kafka::shared().bootstrap();
    let mut config = config(kafka);
    config.partitions = 1;
    let node = Node::start(&config);
    let mut here = device(&node, "here");
    // The producer waits a while for a topic that is not there.
    let reports = &config.downlink.reports_topic;
    log::delete(kafka, reports);
    let append = |messages: &[Downlink]| log::append(kafka, &config.downlink.topic, messages);
    append(&[command("here", "c-1", 300)]);
    here.message();
    // More than the time in which the position is committed otherwise.
    std::thread::sleep(Duration::from_millis(800));
    let group = config.downlink_group();
    let position = || log::committed(kafka, &group, &config.downlink.topic);
    assert_eq!((position(), node.status().downlink.reported), (0, 0));
    log::create(kafka, reports, 1, 1);
    until(&config, "c-1", &[Outcome::Delivered]);
    wait_for("then it moves", || position() == 1);
    assert_eq!(node.status().problems, [] as [String; 0]);

    // Kafka refuses what is too large.
    log::set(kafka, reports, "max.message.bytes", "120");
    append(&[command("here", "c-2", 300)]);
    here.message();
    wait_for("it is said", || {
        let problems = node.status().problems;
        problems
            .iter()
            .any(|problem| problem.contains("reports of the downlink were lost: 1 "))
    });
    wait_for("nothing waits for it", || position() == 2);
    assert_eq!(node.status().downlink.reports_lost, 1);
}
