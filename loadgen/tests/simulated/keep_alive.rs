//! Keep-alive and expiry over hours that pass in no time.

use std::time::Duration;

use loadgen::swarm::{Client, Leave, Notice, Swarm};

use super::support::{Net, config, stamp, topic};

const HOUR: Duration = Duration::from_secs(3_600);
const CLIENTS: u32 = 2_000;

#[test]
fn nobody_is_given_up_in_hours_and_everybody_pings_once_an_interval() {
    let mut net = Net::of(CLIENTS, &config());
    net.connect_all(CLIENTS, 0, |hello| {
        hello.keep_alive_s = if hello.client_id.ends_with('7') {
            0
        } else {
            60
        };
    });
    let before = net.stats().packets_received;
    assert_eq!(net.pass(6 * HOUR), []);
    assert_eq!(net.swarms[0].now() / 1_000_000_000, 6 * 3_600);
    let stats = net.stats();
    assert_eq!(stats.clients, u64::from(CLIENTS));
    assert_eq!(stats.closed_keep_alive, 0);
    let pingers = u64::from(CLIENTS / 10 * 9);
    let pings = stats.packets_received - before;
    // One in 57 seconds: 378 in six hours, give or take the first and last.
    assert!(pings >= pingers * 378, "{pings}");
    assert!(pings <= pingers * 380, "{pings}");
    for client in 0..CLIENTS {
        net.publish(0, &topic(client), 0, stamp(0, client));
    }
    assert_eq!(net.run().len(), CLIENTS as usize);
}

#[test]
fn the_broker_says_how_often_to_ping() {
    let mut config = config();
    config.limits.keep_alive_max_s = 30;
    let mut net = Net::of(100, &config);
    net.connect_all(100, 0, |_| ());
    assert_eq!(net.pass(HOUR), []);
    assert_eq!(net.stats().closed_keep_alive, 0);
    assert!(net.stats().packets_received > 100 * 120);
}

#[test]
fn sessions_end_when_their_time_is_over() {
    let mut net = Net::of(2, &config());
    net.connect_all(2, 1, |hello| hello.session_expiry_s = 7_200);
    net.swarms[0].disconnect(Client(0), Leave::Abruptly);
    net.pass(HOUR);
    assert_eq!(net.stats().sessions, 2);
    net.pass(2 * HOUR);
    assert_eq!(net.stats().sessions, 1);
    net.connect(0, |hello| hello.clean_start = false);
    let notices = net.run();
    assert!(matches!(
        notices[..],
        [Notice::Connected {
            session_present: false,
            ..
        }]
    ));
}

#[test]
fn time_stands_still_while_something_happens_and_then_goes_on_to_the_end_of_the_wait() {
    let mut net = Net::of(1, &config());
    net.connect(0, |_| ());
    let mut notices = Vec::new();
    net.swarms[0].turn(HOUR, &mut notices).unwrap();
    assert_eq!((notices.len(), net.swarms[0].now()), (1, 0));
    net.swarms[0].turn(HOUR, &mut notices).unwrap();
    assert_eq!(notices.len(), 1);
    assert_eq!(net.swarms[0].now(), HOUR.as_nanos() as u64);
}
