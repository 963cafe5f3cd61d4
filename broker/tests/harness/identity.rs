//! Who a client is: answers that come at once, late, never, or when nobody waits for them any more.

use std::sync::Arc;

use broker::identity::{Refusal, Said};
use codec::{Property, Version};

use crate::support::{Client, Doorman, Join, NOTHING, Net, Pub};

/// Runs a test behind a doorman, with each number of workers that makes a difference, and each version of the protocol.
fn everywhere(test: impl Fn(&Net, &Arc<Doorman>, Version)) {
    for workers in [1, 3] {
        for version in Version::ALL {
            let doorman = Doorman::new();
            let net = Net::guarded(doorman.chain(false), |config| config.workers = workers);
            test(&net, &doorman, version);
        }
    }
}

fn client(net: &Net, version: Version, id: &str, user: &str) -> Join {
    net.client(id).version(version).user(user, "secret")
}

fn word(version: Version, v5: &str, v3: &str) -> Vec<String> {
    let code = if version == Version::V5 { v5 } else { v3 };
    vec![format!("CONNACK {code}"), "closed".to_owned()]
}

#[test]
fn what_came_behind_the_connect_waits_with_it_and_others_do_not() {
    everywhere(|net, doorman, version| {
        let mut other = client(net, version, "other", "at once bob").connect();
        other.subscribe("t", 1);
        let mut ada = net.open_as(version);
        let mut bytes = client(net, version, "a", "ada").bytes();
        bytes.extend(ada.encode_publish(&Pub::new("t", "x").qos(1, 1)));
        bytes.extend([0xc0, 0]);
        ada.write(&bytes);
        ada.write(&[0xc0, 0]);
        assert_eq!(ada.got(), NOTHING);
        assert_eq!(net.stats().clients_asked, 1);
        other.publish("t", 1, "y");
        assert_eq!(other.got(), ["PUBLISH t y q1 #1", "PUBACK #1"]);
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(
            ada.got(),
            ["CONNACK 0x00", "PUBACK #1", "PINGRESP", "PINGRESP"]
        );
        assert_eq!(other.got(), ["PUBLISH t x q1 #2"]);
        let stats = net.stats();
        assert_eq!((stats.clients_asked, stats.clients), (0, 2));
    });
}

#[test]
fn a_connect_in_pieces_is_asked_about_once() {
    everywhere(|net, doorman, version| {
        let bytes = client(net, version, "a", "ada").bytes();
        let mut ada = net.open_as(version);
        for byte in &bytes {
            ada.write(&[*byte]);
        }
        assert_eq!(doorman.asked(), ["ada"]);
        ada.write(&[0xc0]);
        ada.write(&[0]);
        assert_eq!(doorman.asked(), ["ada"]);
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(ada.got(), ["CONNACK 0x00", "PINGRESP"]);
    });
}

#[test]
fn what_waits_behind_a_connect_is_bounded() {
    everywhere(|net, doorman, version| {
        let mut ada = client(net, version, "a", "ada").attempt();
        let pings = [0xc0, 0].repeat(50_000);
        ada.write(&pings);
        let unread = ada.unread();
        assert!((80_000..90_000).contains(&unread), "{unread}");
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(ada.unread(), 0);
        let got = ada.got();
        assert_eq!((got.len(), got[0].as_str()), (50_001, "CONNACK 0x00"));
    });
}

#[test]
fn an_answer_that_never_comes_ends_with_the_time_for_the_connect() {
    everywhere(|net, doorman, version| {
        let mut ada = client(net, version, "a", "ada").attempt();
        ada.write(&[0xc0, 0]);
        net.advance_ms(9_900);
        assert_eq!(ada.got(), NOTHING);
        net.advance_ms(300);
        assert_eq!(ada.got(), word(version, "0x88", "0x88"));
        let stats = net.stats();
        assert_eq!(
            (
                stats.clients_asked,
                stats.clients_refused_unavailable,
                stats.clients_connected
            ),
            (0, 1, 0)
        );
        // It comes after all, to nobody.
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!((net.stats().clients_connected, ada.got().len()), (0, 0));
    });
}

#[test]
fn an_answer_that_is_forgotten_is_a_refusal_at_once() {
    everywhere(|net, doorman, version| {
        let mut ada = client(net, version, "a", "ada").attempt();
        drop(doorman.take("ada"));
        net.run();
        assert_eq!(ada.got(), word(version, "0x88", "0x88"));
    });
}

/// The connection is gone when the answer comes, in each way in which it can go, and another one has its place.
#[test]
fn an_answer_for_a_connection_that_is_gone_lets_nobody_in() {
    let ends: [fn(&mut Client); 3] = [
        Client::cut,
        Client::finish,
        // Nobody reads it before it is answered: the end behind it is not seen until then.
        |client| {
            client.write(&[0xc0, 0].repeat(50_000));
            client.cut();
        },
    ];
    for end in ends {
        everywhere(|net, doorman, version| {
            let mut first = client(net, version, "a", "ada").attempt();
            end(&mut first);
            assert_eq!(net.stats().clients_asked, 0);
            assert_eq!(net.stats().connections, 0);
            let mut second = client(net, version, "a", "bob").attempt();
            doorman.answer("ada", Doorman::is("ada"));
            net.run();
            assert_eq!(second.got(), NOTHING);
            assert_eq!(net.stats().clients, 0);
            doorman.answer("bob", Doorman::is("bob"));
            net.run();
            assert_eq!(second.got(), ["CONNACK 0x00"]);
        });
    }
}

#[test]
fn the_connect_that_came_last_has_the_session_in_whatever_order_they_are_answered() {
    everywhere(|net, doorman, version| {
        let mut ended = match version {
            Version::V5 => vec!["DISCONNECT 0x8e".to_owned()],
            _ => Vec::new(),
        };
        ended.push("closed".to_owned());
        // In their order.
        let mut first = client(net, version, "a", "ada").attempt();
        let mut second = client(net, version, "a", "ada").attempt();
        assert_eq!(doorman.asked(), ["ada", "ada"]);
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(
            (first.got(), second.got()),
            (vec!["CONNACK 0x00".into()], vec![])
        );
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(
            (first.got(), second.got()),
            (ended, vec!["CONNACK 0x00".into()])
        );
        // The other way round: who came first is not let in any more.
        let mut third = client(net, version, "a", "ada").attempt();
        let mut fourth = client(net, version, "a", "ada").attempt();
        let of_third = doorman.take("ada");
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(fourth.got(), ["CONNACK 0x00"]);
        assert_eq!(third.got(), ["closed"]);
        of_third.answer(Doorman::is("ada"));
        net.run();
        assert!(fourth.is_open());
        let stats = net.stats();
        assert_eq!((stats.clients, stats.clients_asked), (1, 0));
        assert_eq!(stats.closed_taken_over, 3);
        fourth.ping();
        assert_eq!(fourth.got(), ["PINGRESP"]);
    });
}

#[test]
fn who_is_refused_takes_nothing_over() {
    everywhere(|net, doorman, version| {
        let mut ada = client(net, version, "a", "at once ada").connect();
        let mut older = client(net, version, "a", "ada").attempt();
        let mut thief = client(net, version, "a", "thief").attempt();
        doorman.answer("thief", Doorman::wrong());
        net.run();
        assert_eq!(thief.got(), word(version, "0x86", "0x86"));
        assert_eq!(older.got(), NOTHING);
        ada.ping();
        assert_eq!(ada.got(), ["PINGRESP"]);
    });
}

#[test]
fn every_refusal_has_its_code_and_its_count() {
    everywhere(|net, doorman, version| {
        for (refusal, code) in [
            (Refusal::BadCredentials, "0x86"),
            (Refusal::NotAuthorized, "0x87"),
            (Refusal::TooManyAttempts, "0x9f"),
            (Refusal::Busy, "0x89"),
            (Refusal::Unavailable, "0x88"),
        ] {
            let mut ada = client(net, version, "a", "ada").attempt();
            doorman.answer("ada", Said::refused(refusal, "the test says so"));
            net.run();
            // 3.x has fewer words: those of no room, and of no server, are one.
            let of_3x = match refusal {
                Refusal::TooManyAttempts | Refusal::Busy => "0x88",
                _ => code,
            };
            assert_eq!(ada.got(), word(version, code, of_3x), "{refusal:?}");
        }
        let mut nobody = net.client("a").version(version).attempt();
        assert_eq!(nobody.got(), word(version, "0x87", "0x87"));
        let stats = net.stats();
        let refused = [
            stats.clients_refused_credentials,
            stats.clients_refused_identity,
            stats.clients_refused_attempts,
            stats.clients_refused_busy,
            stats.clients_refused_unavailable,
        ];
        assert_eq!(refused, [1, 2, 1, 1, 1]);
        assert_eq!(
            (stats.closed_connect_refused, stats.clients_connected),
            (6, 0)
        );
        assert_eq!(stats.passwords_unchecked, 0);
    });
}

#[test]
fn strangers_come_in_where_they_may_and_wrong_passwords_do_not() {
    let net = Net::guarded(Doorman::new().chain(true), |_| ());
    net.join("a").ping();
    let mut wrong = client(&net, Version::V5, "b", "at once wrong").attempt();
    assert_eq!(wrong.got(), ["CONNACK 0x86", "closed"]);
}

#[test]
fn a_users_session_is_not_another_users() {
    everywhere(|net, _, version| {
        let mut ada = client(net, version, "a", "at once ada")
            .persistent()
            .connect();
        ada.subscribe("t", 1);
        ada.cut();
        let mut bob = client(net, version, "a", "at once bob")
            .persistent()
            .attempt();
        assert_eq!(bob.got(), word(version, "0x87", "0x87"));
        let ada = client(net, version, "a", "at once ada")
            .persistent()
            .connect();
        // 3.1 cannot say that a session is present.
        assert_eq!(ada.session_present, version != Version::V31);
        let mut bob = client(net, version, "a", "at once bob").attempt();
        assert_eq!(bob.got(), word(version, "0x87", "0x87"));
        assert!(ada.is_open(), "it was taken over by another user");
        assert_eq!(net.stats().subscriptions, 1);
    });
}

#[test]
fn who_is_let_in_for_a_time_is_disconnected_when_it_is_over() {
    everywhere(|net, doorman, version| {
        let mut ended = match version {
            Version::V5 => vec!["DISCONNECT 0xa0".to_owned()],
            _ => Vec::new(),
        };
        ended.push("closed".to_owned());
        let mut watcher = client(net, version, "w", "at once bob").connect();
        watcher.subscribe("will", 0);
        let mut ada = client(net, version, "a", "ada")
            .persistent()
            .will("will", "gone")
            .attempt();
        doorman.answer("ada", Doorman::is_for_ms("ada", 3_600_000));
        net.run();
        assert_eq!(ada.got(), ["CONNACK 0x00"]);
        net.advance_s(3_599);
        assert_eq!(ada.got(), NOTHING);
        net.advance_s(2);
        assert_eq!(ada.got(), ended);
        assert_eq!(watcher.got(), ["PUBLISH will gone"]);
        let stats = net.stats();
        assert_eq!(
            (stats.closed_expired, stats.clients, stats.sessions),
            (1, 1, 2)
        );
        // The time of one connection is not that of the next.
        let mut again = client(net, version, "a", "at once ada").attempt();
        assert_eq!(again.got(), word(version, "0x87", "0x87"));
        let mut again = client(net, version, "a", "ada").attempt();
        doorman.answer("ada", Doorman::is("ada"));
        net.run();
        assert_eq!(again.got()[0][..12], *"CONNACK 0x00");
        net.advance_s(100_000);
        assert!(again.is_open());
    });
}

#[test]
fn an_empty_client_identifier_is_assigned_when_the_answer_is_there() {
    for workers in [1, 3] {
        let doorman = Doorman::new();
        let net = Net::guarded(doorman.chain(false), |config| config.workers = workers);
        let clients: Vec<Client> = (0..5)
            .map(|_| client(&net, Version::V5, "", "ada").attempt())
            .collect();
        for _ in &clients {
            doorman.answer("ada", Doorman::is("ada"));
        }
        net.run();
        for mut client in clients {
            assert_eq!(client.got(), ["CONNACK 0x00"]);
        }
        assert_eq!((net.stats().clients, net.stats().closed_taken_over), (5, 0));
    }
}

#[test]
fn a_shutdown_does_not_wait_for_answers() {
    everywhere(|net, doorman, version| {
        let mut ada = client(net, version, "a", "ada").attempt();
        assert!(net.sim().shut_down());
        assert!(!ada.is_open());
        assert_eq!(ada.got(), ["closed"]);
        doorman.answer("ada", Doorman::is("ada"));
    });
}

#[test]
fn what_is_asked_is_what_the_client_said() {
    let doorman = Doorman::new();
    let net = Net::guarded(doorman.chain(false), |_| ());
    let _client = client(&net, Version::V5, "a", "ada")
        .with(Property::SessionExpiryInterval(9))
        .attempt();
    let question = doorman.take("ada");
    let credentials = question.credentials();
    assert_eq!(&*credentials.client_id, "a");
    assert_eq!(
        credentials.password.as_ref().map(|it| it.reveal()),
        Some(&b"secret"[..])
    );
    assert_eq!(&*credentials.listener, "mqtt");
}
