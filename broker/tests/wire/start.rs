//! Starting and stopping on a real port.

use std::net::TcpListener;

use broker::{Broker, Config, StartError};

use crate::support::Server;
use crate::support::process::mosquitto_sub;

#[test]
fn a_port_in_use_is_one_clear_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config {
        listen: address.to_string(),
        ..Config::default()
    };
    let error = Broker::bind(config).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen for MQTT on {address}: another program listens there already; stop it, or choose another port"
        )
    );
}

#[test]
fn an_address_of_another_machine_is_one_clear_sentence() {
    let mut config = Config {
        listen: "192.0.2.1:1883".to_owned(), // reserved for documentation: nobody has it
        ..Config::default()
    };
    config.authentication.anonymous = true;
    assert_eq!(
        Broker::bind(config).unwrap_err().to_string(),
        "cannot listen for MQTT on 192.0.2.1:1883: this machine has no such address"
    );
}

#[test]
fn an_address_that_others_reach_needs_a_word_about_who_may_connect() {
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:1883"] {
        let mut config = Config {
            listen: open.to_owned(),
            ..Config::default()
        };
        let error = Broker::bind(config.clone()).unwrap_err().to_string();
        for part in [open, "--password-file FILE", "--anonymous", "chain"] {
            assert!(error.contains(part), "{error}");
        }
        config.authentication.anonymous = true;
        let bound = Broker::bind(config);
        let is_refused = matches!(&bound, Err(StartError::Config(_)));
        assert!(!is_refused, "{bound:?}");
    }
}

#[test]
fn a_stopped_broker_frees_its_port_at_once() {
    let mut server = Server::start();
    let client = mosquitto_sub(&server, "mqttv311", &["-t", "a"]);
    server.until_subscribed(1);
    let listen = format!("127.0.0.1:{}", server.port);
    server.stop();
    let again = Server::with(|config| config.listen = listen);
    // mosquitto_sub comes back by itself.
    again.until_subscribed(1);
    drop(client);
}
