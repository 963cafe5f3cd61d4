//! A start that cannot succeed says why in one sentence that leads to the remedy, and ends with exit code 2.

use std::io::Write;
use std::net::TcpListener;

use testkit::millstream::{Ended, Millstream, run};

/// Asserts a refused start, and gives its sentence.
fn refused(ended: &Ended) -> String {
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    let lines: Vec<&str> = ended.err.lines().collect();
    let [line] = lines[..] else {
        panic!("not one line: {:?}", ended.err);
    };
    let sentence = line
        .strip_prefix("millstream: ")
        .expect("it says who speaks");
    assert_eq!(ended.out, "", "a start that fails prints nothing else");
    sentence.to_owned()
}

fn assert_says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{sentence:?} lacks {part:?}");
    }
}

/// A port that is taken as long as the listener lives.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// An address at which nobody answers: bound once and let go.
fn nobody() -> String {
    taken().1
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(".toml")
        .tempfile()
        .expect("a file");
    file.write_all(text.as_bytes())
        .expect("a file that can be written");
    file
}

#[test]
fn the_mqtt_port_is_in_use() {
    let (_held, address) = taken();
    for command in ["broker", "up"] {
        let sentence = refused(&run(&[
            command,
            "--mqtt",
            &address,
            "--http",
            "127.0.0.1:0",
        ]));
        assert_says(&sentence, &[&address, "in use", "--mqtt"]);
    }
}

#[test]
fn the_http_port_is_in_use() {
    let (_held, address) = taken();
    for command in ["broker", "up", "chat", "iot", "dashboard"] {
        let sentence = refused(&run(&[command, "--http", &address]));
        assert_says(&sentence, &[&address, "in use", "--http"]);
    }
}

#[test]
fn an_address_is_none() {
    for (option, text) in [
        ("--mqtt", "1883"),
        ("--http", "localhost"),
        ("--mqtt", "127.0.0.1:70000"),
    ] {
        let sentence = refused(&run(&["broker", option, text]));
        assert_says(&sentence, &[option, text, "HOST:PORT"]);
    }
    let sentence = refused(&run(&[
        "broker",
        "--anonymous",
        "--mqtt",
        "192.0.2.1:1883",
        "--http",
        "127.0.0.1:0",
    ]));
    assert_says(
        &sentence,
        &["192.0.2.1:1883", "not an address of this machine", "--mqtt"],
    );
}

#[test]
fn kafka_cannot_be_reached() {
    let kafka = nobody();
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("UTF-8");
    let config = file(
        "[bridge]\nstart_timeout_ms = 1000\n[chat.consumer]\nstart_timeout_ms = 1000\n\
         [iot.consumer]\nstart_timeout_ms = 1000\n[dashboard.consumer]\nstart_timeout_ms = 1000\n",
    );
    let config = config.path().to_str().expect("UTF-8");
    let common = [
        "--kafka",
        &kafka,
        "--http",
        "127.0.0.1:0",
        "--config",
        config,
    ];
    let broker = ["--mqtt", "127.0.0.1:0"];
    for (command, more) in [
        ("broker", &broker[..]),
        ("up", &[broker[0], broker[1], "--data", data]),
    ] {
        let sentence = refused(&run(&[&[command], &common[..], more].concat()));
        assert_says(&sentence, &[&kafka, "did not answer"]);
    }
    for command in ["chat", "iot", "dashboard"] {
        let database = format!("sqlite:{data}/{command}.db");
        let sentence = refused(&run(
            &[&[command], &common[..], &["--database", &database]].concat()
        ));
        assert_says(&sentence, &[&kafka, "cannot be reached", command]);
    }
}

#[test]
fn kafka_addresses_are_none() {
    for command in ["broker", "up", "chat", "iot", "dashboard"] {
        let sentence = refused(&run(&[command, "--kafka", "localhost"]));
        assert_says(&sentence, &["kafka", "localhost", "allowed"]);
    }
}

#[test]
fn the_configuration_is_wrong() {
    for (text, parts) in [
        (
            "[broker]\nworkrs = 1\n",
            &["line 2", "broker.workrs", "no key", "workers"][..],
        ),
        (
            "[broker]\nworkers = \"many\"\n",
            &["line 2", "broker.workers", "\"many\"", "threads"],
        ),
        (
            "[broker]\nworkers = 1000\n",
            &["line 2", "broker.workers", "1000", "0 "],
        ),
        (
            "[broker.limits]\nconnect_timeout_ms = \"10 s\"\n",
            &[
                "line 2",
                "broker.limits.connect_timeout_ms",
                "\"10 s\"",
                "milliseconds",
            ],
        ),
        (
            "[bridge]\npartitions = 0\n",
            &["line 2", "bridge.partitions", "0", "1 to 10000"],
        ),
        (
            "[bridge.producer]\nmessage_bytes_max = 2000000\nqueue_bytes_max = 1000000\n",
            &[
                "line 3",
                "bridge.producer.queue_bytes_max",
                "1000000",
                "at least",
                "message_bytes_max",
            ],
        ),
        (
            "[chat.consumer]\nretry_backoff_ms_min = 500\nretry_backoff_ms_max = 100\n",
            &[
                "line 3",
                "chat.consumer.retry_backoff_ms_max",
                "100",
                "retry_backoff_ms_min",
            ],
        ),
        (
            "[iot]\ncommand_expiry_s = 0\n",
            &["line 2", "iot.command_expiry_s", "0", "seconds"],
        ),
        ("broker = 1\n", &["line 1", "broker"]),
        ("[broker\n", &["line 1", "not TOML"]),
    ] {
        let config = file(text);
        let path = config.path().to_str().expect("UTF-8");
        for arguments in [
            &["broker", "--config", path][..],
            &["config", "check", path],
        ] {
            let sentence = refused(&run(arguments));
            assert_says(&sentence, &[path]);
            assert_says(&sentence, parts);
        }
    }
}

#[test]
fn the_configuration_is_not_there() {
    let sentence = refused(&run(&["broker", "--config", "/nowhere/millstream.toml"]));
    assert_says(&sentence, &["/nowhere/millstream.toml", "--config"]);
}

#[test]
fn the_log_filter_is_none() {
    let sentence = refused(&run(&["broker", "--log", "loud"]));
    assert_says(&sentence, &["--log", "loud", "debug"]);
}

#[test]
fn the_database_is_none() {
    let kafka = nobody();
    let sentence = refused(&run(&[
        "chat",
        "--kafka",
        &kafka,
        "--http",
        "127.0.0.1:0",
        "--database",
        "mysql://x",
    ]));
    assert_says(&sentence, &["chat", "mysql://x", "sqlite:"]);
}

#[test]
fn the_directory_is_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("UTF-8");
    let free = [
        "--mqtt",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--data",
        data,
    ];
    let arguments = [&["up"], &free[..]].concat();
    let first = Millstream::start(&arguments);
    let sentence = refused(&run(&arguments));
    assert_says(&sentence, &[data, "in use", "--data"]);
    assert_eq!(first.terminate().status.code(), Some(0));
}
