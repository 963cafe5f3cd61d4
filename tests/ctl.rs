//! `millstream ctl` and the operators' API on the real binary, with clients that are not ours: found, shown, disconnected,
//! banned; what is logged and configured changed; the process drained. And the OpenAPI document says the truth.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::clients::publish;
use testkit::eventually;
use testkit::http::agent;
use testkit::millstream::{Ended, Millstream, Process, configuration, run, signal};

fn node(arguments: &[&str]) -> Millstream {
    let free = ["broker", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    Millstream::start(&[&free[..], arguments].concat())
}

/// Runs `millstream ctl` on a node.
fn ctl(node: &Millstream, arguments: &[&str]) -> Ended {
    run(&[&["ctl", "--url", &node.http], arguments].concat())
}

/// The same, which has to do it: what it prints.
fn done(node: &Millstream, arguments: &[&str]) -> String {
    let ended = ctl(node, arguments);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
    ended.out
}

fn done_json(node: &Millstream, arguments: &[&str]) -> Value {
    let out = done(node, &[&["--json"], arguments].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The same, which has to fail: with that exit code, and what it says.
fn fails(node: &Millstream, code: i32, arguments: &[&str]) -> String {
    let ended = ctl(node, arguments);
    assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
    ended.err
}

/// `mosquitto_sub` with a client identifier, subscribed and shown by the node. Dropping it kills it.
struct Subscriber(Child);

impl Subscriber {
    fn start(node: &Millstream, id: &str, filters: &[&str], more: &[&str]) -> Self {
        let mut command = Command::new("mosquitto_sub");
        let mqtt = node.mqtt();
        command
            .args(["-h", &mqtt.ip().to_string(), "-p", &mqtt.port().to_string()])
            .args(["-i", id, "-q", "1"])
            .args(filters.iter().flat_map(|filter| ["-t", filter]))
            .args(more);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub can be run (Debian: mosquitto-clients)");
        let subscriber = Self(child);
        eventually("mosquitto_sub's subscriptions", || {
            let all = done_json(node, &["subscriptions", "--client", id]);
            let subscribed = all["items"].as_array().expect("a list").len();
            (subscribed == filters.len()).then_some(())
        });
        subscriber
    }

    fn ended(&mut self) {
        eventually("mosquitto_sub's end", || {
            self.0.try_wait().expect("its own child")
        });
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_are_found_shown_disconnected_and_banned() {
    let node = node(&[]);
    let mut device = Subscriber::start(&node, "device/17", &["a/+", "b"], &["-c", "-k", "33"]);
    let _other = Subscriber::start(&node, "phone", &["$share/g/a/#"], &["-V", "5"]);

    let list = done(&node, &["clients", "--id", "device/*"]);
    assert!(
        list.contains("device/17") && list.contains("connected"),
        "{list}"
    );
    assert!(!list.contains("phone"), "{list}");
    assert!(list.contains("127.0.0.1:"), "the address: {list}");
    let page = done_json(&node, &["clients", "--limit", "1"]);
    let cursor = page["next"].as_str().expect("there are two");
    let rest = done_json(&node, &["clients", "--cursor", cursor]);
    let mut names = [&page, &rest].map(|page| page["items"][0]["client_id"].clone());
    names.sort_by_key(Value::to_string);
    assert_eq!(names, [json!("device/17"), json!("phone")]);
    assert_eq!(rest["next"], Value::Null);
    let by_address = done_json(&node, &["clients", "--address", "127.0.0.0/8"]);
    assert_eq!(by_address["items"].as_array().expect("a list").len(), 2);
    let version = done_json(&node, &["clients", "--mqtt-version", "5.0", "--connected"]);
    assert_eq!(version["items"][0]["client_id"], "phone");

    let shown = done(&node, &["client", "device/17"]);
    for line in ["keep-alive", "33 s", "clean start", "3.1.1", "2"] {
        assert!(shown.contains(line), "{line} is missing in {shown}");
    }
    assert!(fails(&node, 5, &["client", "nobody"]).contains("does not exist"));

    let who = done_json(&node, &["who", "a/x"]);
    assert_eq!(who["sessions"][0]["client_id"], "device/17");
    assert_eq!(who["groups"][0]["members"][0]["client_id"], "phone");
    let who = done(&node, &["who", "a/x"]);
    assert!(who.contains("a/+") && who.contains("$share/g/a/#"), "{who}");

    // mosquitto_sub would come back at once: the ban keeps it out.
    let banned = done(
        &node,
        &[
            "ban",
            "--id",
            "device/17",
            "--seconds",
            "600",
            "--why",
            "a test",
        ],
    );
    assert!(
        banned.contains("1 disconnected") && banned.contains("a test"),
        "{banned}"
    );
    device.ended();
    let away = done_json(&node, &["clients", "--away"]);
    assert_eq!(away["items"][0]["client_id"], "device/17");
    let mut refused = Command::new("mosquitto_sub");
    let refused = refused
        .args([
            "-p",
            &node.mqtt().port().to_string(),
            "-i",
            "device/17",
            "-t",
            "x",
        ])
        .output()
        .expect("mosquitto_sub can be run");
    assert!(!refused.status.success());
    let bans = done_json(&node, &["bans"]);
    assert_eq!(bans["bans"][0]["client_id"], "device/17");
    assert!(bans["bans"][0]["refused"].as_u64() >= Some(1), "{bans}");
    done(&node, &["unban", "--id", "device/17"]);
    fails(&node, 5, &["unban", "--id", "device/17"]);

    let ended = done(&node, &["disconnect", "device/17", "--end-session"]);
    assert!(
        ended.contains("was not connected; its session has ended"),
        "{ended}"
    );
    fails(&node, 5, &["disconnect", "device/17"]);
    let wrong = fails(&node, 2, &["disconnect", "phone", "--reason", "4"]);
    assert!(wrong.contains("from 128 on"), "{wrong}");
    let by_network = done(&node, &["ban", "--address", "127.0.0.0/8"]);
    assert!(by_network.contains("1 disconnected"), "{by_network}");
}

#[test]
fn clients_are_found_by_their_users() {
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users").display().to_string();
    for user in ["ada", "bob"] {
        let added = run(&["passwd", &users, user, "-b", "hunter2"]);
        assert!(added.status.success(), "{added:?}");
    }
    let node = node(&["--password-file", &users]);
    let as_user = |user| ["-u", user, "-P", "hunter2"];
    let _one = Subscriber::start(&node, "one", &["a"], &as_user("ada"));
    let _two = Subscriber::start(&node, "two", &["a"], &as_user("bob"));
    let found = done_json(&node, &["clients", "--user", "a*"]);
    assert_eq!(
        found["items"].as_array().expect("a list").len(),
        1,
        "{found}"
    );
    assert_eq!(found["items"][0]["client_id"], "one");
    assert_eq!(found["items"][0]["user"], "ada");
    assert!(done(&node, &["client", "two"]).contains("bob"));
}

#[test]
fn who_lost_what_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = configuration(&directory, "[broker.limits]\nqueue_messages_max = 5\n");
    let node = node(&["--config", &file]);
    let away = Subscriber::start(&node, "away", &["t/#"], &["-c"]);
    drop(away);
    eventually("its absence", || {
        let list = done_json(&node, &["clients", "--away"]);
        (list["items"][0]["client_id"] == "away").then_some(())
    });
    for n in 0..12 {
        publish(node.mqtt(), &format!("t/{}", n % 2), "x");
    }
    let drops = done_json(&node, &["drops", "--reason", "dropped_*"]);
    let lost: Vec<_> = drops["items"].as_array().expect("a list").iter().collect();
    // Which of the two topics had the room is up to their order.
    let times: u64 = lost.iter().filter_map(|one| one["times"].as_u64()).sum();
    assert_eq!((lost.len(), times), (2, 7), "{drops}");
    assert!(lost.iter().all(|one| one["client_id"] == "away"), "{drops}");
    assert_eq!(lost[0]["topic"], "t/1", "the latest first: {drops}");
    let counted = node.try_json("/api/status").expect("a status");
    assert_eq!(counted["broker"]["dropped_queue_full"], 7);
    let table = done(&node, &["drops", "--client", "a*", "--topic", "t/0"]);
    assert!(
        table.contains("dropped_queue_full") && table.lines().count() == 2,
        "{table}"
    );
    assert_eq!(
        done_json(&node, &["drops", "--client", "b*"])["items"],
        json!([])
    );
}

#[test]
fn a_client_and_a_topic_are_traced_and_busy_topics_named() {
    let node = node(&[]);
    let port = node.mqtt().port().to_string();
    let url = node.http.clone();
    let trace = |more: &[&str]| Process::start(&[&["ctl", "--url", &url, "trace"], more].concat());
    let mut of_client = trace(&["--client", "c", "--lines", "6"]);
    let mut of_topic = trace(&[
        "--topic",
        "t/#",
        "--seconds",
        "60",
        "--lines",
        "2",
        "--json",
    ]);
    eventually("both traces", || {
        (node.err().matches("traced by an operator").count() == 2).then_some(())
    });
    let mut sub = Command::new("mosquitto_sub")
        .args([
            "-p", &port, "-i", "c", "-u", "anna", "-P", "hunter2", "-q", "1", "-t", "t/+", "-C",
            "1",
        ])
        .stdout(Stdio::null())
        .spawn()
        .expect("mosquitto_sub can be run");
    eventually("mosquitto_sub's subscription", || {
        let all = done_json(&node, &["subscriptions", "--client", "c"]);
        (!all["items"].as_array().expect("a list").is_empty()).then_some(())
    });
    publish(node.mqtt(), "t/1", "hello");
    sub.wait().expect("its own child");
    let ended = of_client.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let lines: Vec<&str> = ended.out.lines().collect();
    for (line, said) in lines.iter().zip([
        "<- c CONNECT c V311",
        "-> c CONNACK 0x00",
        "<- c SUBSCRIBE #1 t/+ q1",
        "-> c SUBACK #1 0x01",
        "-> c PUBLISH t/1 q1 #1 5 bytes \"hello\"",
        "<- c PUBACK #1",
        "the trace has ended",
    ]) {
        assert!(
            line.contains(said),
            "{line:?} is not {said:?}: {}",
            ended.out
        );
    }
    assert_eq!(lines.len(), 7, "{}", ended.out);
    assert!(
        lines[0].contains("user anna password (7 bytes, not shown)"),
        "{}",
        lines[0]
    );
    assert!(!ended.out.contains("hunter2"));
    let ended = of_topic.ended();
    let lines: Vec<Value> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&lines[0]["kind"], &lines[1]["kind"]),
        (&json!("received"), &json!("delivery"))
    );
    assert_eq!(lines[1]["client_id"], "c");
    assert_eq!(lines[1]["text"], "t/1 q1 sent");
    let counted =
        std::thread::spawn(move || run(&["ctl", "--url", &url, "topics", "--seconds", "1"]));
    while !counted.is_finished() {
        publish(node.mqtt(), "busy", "x");
    }
    let counted = counted.join().expect("no panic");
    assert!(
        counted.out.contains("busy") && counted.out.contains("publishes in"),
        "{counted:?}"
    );
}

#[test]
fn retained_messages_are_listed_read_and_deleted() {
    let node = node(&[]);
    let port = node.mqtt().port().to_string();
    for (topic, payload) in [
        ("s/1/state", "on"),
        ("s/2/state", "off\u{1b}[2J"),
        ("x", "y"),
    ] {
        let published = Command::new("mosquitto_pub")
            .args(["-p", &port, "-r", "-q", "1", "-t", topic, "-m", payload])
            .status()
            .expect("mosquitto_pub can be run");
        assert!(published.success());
    }
    let list = done(&node, &["retained", "list", "s/+/state"]);
    assert!(
        list.contains("s/1/state") && list.contains("s/2/state"),
        "{list}"
    );
    assert_eq!(list.lines().count(), 3, "{list}");
    let page = done_json(&node, &["retained", "list", "s/#", "--limit", "1"]);
    let next = page["next"].as_str().expect("there are two").to_owned();
    let rest = done_json(&node, &["retained", "list", "s/#", "--cursor", &next]);
    assert_eq!(rest["items"].as_array().expect("a list").len(), 1);
    // Into a pipe goes what it is.
    assert_eq!(
        done(&node, &["retained", "read", "s/2/state"]),
        "off\u{1b}[2J"
    );
    done(&node, &["retained", "delete", "s/2/state", "x"]);
    let left = done_json(&node, &["retained", "list"]);
    assert_eq!(left["items"].as_array().expect("a list").len(), 1, "{left}");
    fails(&node, 5, &["retained", "delete", "x"]);
    fails(&node, 2, &["retained", "read", "a/#"]);
}

#[test]
fn what_is_logged_and_configured_changes_while_it_runs_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = configuration(&directory, "[log]\nfilter = \"warn\"\n");
    let node = node(&["--config", &file]);
    assert_eq!(done(&node, &["log"]), "warn\n");
    done(&node, &["log", "info,broker=debug"]);
    publish(node.mqtt(), "t", "x");
    eventually("a line of the broker", || {
        node.err().contains("DEBUG").then_some(())
    });
    let wrong = fails(&node, 2, &["log", "loud"]);
    assert!(wrong.contains("\"loud\" is no level"), "{wrong}");

    let write = |text: &str| configuration(&directory, text);
    write("[log]\nfilter = \"error\"\n[broker]\nworkers = 3\n");
    let reloaded = done(&node, &["reload"]);
    assert!(
        reloaded.contains("changed: log.filter: \"error\" instead of \"warn\""),
        "{reloaded}"
    );
    assert!(
        reloaded.contains("needs a restart: broker.workers: 3 instead of 0"),
        "{reloaded}"
    );
    assert_eq!(done(&node, &["log"]), "error\n");
    write(
        "[log]\nfilter = \"info\"\n[broker]\nworkers = 3\n[broker.limits]\nreceive_maximum = 0\n",
    );
    let refused = fails(&node, 2, &["reload"]);
    assert!(
        refused.contains("nothing was changed") && refused.contains("line"),
        "{refused}"
    );
    assert_eq!(done(&node, &["log"]), "error\n");
    write("[log]\nfilter = \"info\"\n");
    signal(node.pid(), "HUP");
    eventually("the filter of the file", || {
        (done(&node, &["log"]) == "info\n").then_some(())
    });
    let ended = node.terminate();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn rules_that_are_read_again_hold_for_who_is_connected() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = configuration(&directory, "");
    let node = node(&["--config", &file]);
    let mut reader = Subscriber::start(&node, "reader", &["secret/#"], &["-V", "5"]);
    let _other = Subscriber::start(&node, "other", &["open/#"], &[]);
    let rules = "[[broker.access.rules]]\neffect = \"deny\"\naction = \"connect\"\nclient = \"reader\"\n\
                 [broker.limits]\nqueue_messages_max = 77\n";
    configuration(&directory, rules);
    let reloaded = done_json(&node, &["reload"]);
    let changed = reloaded["changed"].to_string();
    assert!(
        changed.contains("broker.access.rules") && changed.contains("77 instead of 10000"),
        "{changed}"
    );
    assert_eq!(reloaded["needs_restart"], json!([]));
    reader.ended();
    let left = done_json(&node, &["clients", "--connected"]);
    assert_eq!(left["items"].as_array().expect("a list").len(), 1, "{left}");
    assert_eq!(left["items"][0]["client_id"], "other");
}

#[test]
fn who_does_not_know_the_token_is_told_so_and_learns_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").expect("a file");
    let token = token.to_str().expect("UTF-8");
    let file = configuration(
        &directory,
        &format!("[http]\nadmin_token = \"file:{token}\"\n"),
    );
    let node = node(&["--config", &file]);
    assert!(
        node.out().contains("whoever knows http.admin_token"),
        "{}",
        node.out()
    );
    let refused = fails(&node, 2, &["clients"]);
    assert!(
        refused.contains("Bearer TOKEN") && !refused.contains("0123456789"),
        "{refused}"
    );
    assert_eq!(node.get("/api/admin/clients").0, 401);
    assert_eq!(node.get("/api/status").0, 200);
    done(&node, &["clients", "--token-file", token]);
    let nobody = run(&["ctl", "--url", "http://127.0.0.1:1", "clients"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(nobody.err.contains("no node answers at"), "{}", nobody.err);
}

#[test]
fn an_operator_drains_the_node() {
    let mut node = node(&[]);
    let _client = Subscriber::start(&node, "c", &["t"], &[]);
    assert!(done(&node, &["drain"]).contains("draining"));
    let ended = node.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.err.contains("as an operator asked"), "{}", ended.err);
}

#[test]
fn a_node_that_drains_is_not_ready_first_and_sends_its_clients_elsewhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let drain = "[broker.drain]\nready_wait_ms = 2000\nspread_ms = 300\nserver_reference = \"other:1883\"\n";
    let mut node = node(&["--config", &configuration(&directory, drain)]);
    let port = node.mqtt().port().to_string();
    let clients: Vec<Child> = (0..5)
        .map(|n| {
            let id = format!("c{n}");
            Command::new("stdbuf")
                .args([
                    "-oL",
                    "mosquitto_sub",
                    "-p",
                    &port,
                    "-V",
                    "5",
                    "-d",
                    "-i",
                    &id,
                    "-t",
                    "t",
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto_sub can be run")
        })
        .collect();
    eventually("five clients", || {
        let list = done_json(&node, &["clients", "--connected"]);
        (list["items"].as_array().expect("a list").len() == 5).then_some(())
    });
    done(&node, &["drain"]);
    assert_eq!(node.get("/health/ready").0, 503);
    // Whoever has not looked yet is still served.
    publish(node.mqtt(), "t", "x");
    let ended = node.ended();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for mut client in clients {
        // It may try to come back.
        let _ = client.kill();
        let said = client.wait_with_output().expect("its own child");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("DISCONNECT (156)"), "{said}");
    }
}

/// A client that connects under any name, and stays.
fn connect(mqtt: SocketAddr, id: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(mqtt).expect("a connection");
    let length = u8::try_from(12 + id.len()).expect("a short name");
    let head = [0x10, length, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0];
    let id_length = u8::try_from(id.len()).expect("a short name");
    stream
        .write_all(&[&head[..], &[id_length], id].concat())
        .expect("written");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("a CONNACK");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

#[test]
fn no_byte_of_a_name_commands_a_terminal_or_forges_a_log_line() {
    let node = node(&["--log", "debug"]);
    let id = "\u{1b}[2Jx\nERROR forged\r\u{9b}31m";
    let mut client = connect(node.mqtt(), id.as_bytes());
    // A publish to a topic that is not allowed, which the log names: `$x` with such a byte.
    client.write_all(b"\x30\x06\0\x03$x\x1bm").expect("written");
    let list = eventually("the client", || {
        let list = done(&node, &["clients"]);
        list.contains("forged").then_some(list)
    });
    assert_eq!(list.lines().count(), 2, "{list:?}");
    assert!(!list.contains(['\u{1b}', '\u{9b}', '\r']), "{list:?}");
    done(&node, &["disconnect", id]);
    let log = eventually("the log's line", || {
        let log = node.err();
        (log.contains("disconnected by an operator") && log.contains("denied")).then_some(log)
    });
    assert!(!log.contains(['\u{1b}', '\u{9b}', '\r']), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("ERROR")), "{log}");
}

/// What is wrong with a value by its schema.
fn judge(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(&reference[1..]).ok_or(reference)?;
        return judge(document, schema, value, at);
    }
    if value.is_null() {
        let may = schema["nullable"] == json!(true);
        return may.then_some(()).ok_or(format!("{at} is null"));
    }
    let wrong = |what: &str| Err(format!("{at} is no {what}: {value}"));
    match schema["type"].as_str() {
        Some("object") => {
            let Some(object) = value.as_object() else {
                return wrong("object");
            };
            let known = schema["properties"].as_object().ok_or("no properties")?;
            for (name, value) in object {
                let schema = known
                    .get(name)
                    .ok_or(format!("{at}.{name} is not described"))?;
                judge(document, schema, value, &format!("{at}.{name}"))?;
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !object.contains_key(name) {
                    return Err(format!("{at}.{name} is missing"));
                }
            }
            Ok(())
        }
        Some("array") => {
            let Some(items) = value.as_array() else {
                return wrong("array");
            };
            let each = |item| judge(document, &schema["items"], item, &format!("{at}[]"));
            items.iter().try_for_each(each)
        }
        Some("string") if value.is_string() => Ok(()),
        Some("integer") if value.is_u64() || value.is_i64() => Ok(()),
        Some("number") if value.is_number() => Ok(()),
        Some("boolean") if value.is_boolean() => Ok(()),
        Some(other) => wrong(other),
        None => Err(format!("{at} has no type: {schema}")),
    }
}

/// What is asked of each operation, so that every answer has something in it. The order is that of the test.
fn samples() -> Vec<(&'static str, &'static str, String, Option<Value>)> {
    let sample = |method, path, query: &str, body| (method, path, query.to_owned(), body);
    vec![
        sample("get", "/api/admin/clients", "?limit=1", None),
        sample("get", "/api/admin/clients/{client_id}", "", None),
        sample("get", "/api/admin/subscriptions", "", None),
        sample("get", "/api/admin/receivers", "?topic=a/x", None),
        sample("get", "/api/admin/retained", "?filter=%23", None),
        sample("get", "/api/admin/retained/message", "?topic=kept", None),
        sample("delete", "/api/admin/retained/message", "?topic=kept", None),
        sample(
            "post",
            "/api/admin/bans",
            "",
            Some(json!({"client_id": "b", "seconds": 9})),
        ),
        sample("get", "/api/admin/bans", "", None),
        sample("delete", "/api/admin/bans", "?client_id=b", None),
        sample("get", "/api/admin/drops", "?limit=9", None),
        sample("get", "/api/admin/topics", "?seconds=1&top=3", None),
        sample("get", "/api/admin/trace", "?topic=%23&seconds=1", None),
        sample("get", "/api/admin/listeners", "", None),
        sample("get", "/api/admin/log", "", None),
        sample("put", "/api/admin/log", "", Some(json!({"filter": "info"}))),
        sample("post", "/api/admin/reload", "", None),
        sample(
            "post",
            "/api/admin/clients/{client_id}/disconnect",
            "",
            Some(json!({"end_session": true})),
        ),
        sample("post", "/api/admin/drain", "", None),
    ]
}

#[test]
fn the_openapi_document_is_true() {
    let node = node(&[]);
    let _client = Subscriber::start(&node, "c", &["a/+", "$share/g/a/#"], &["-c"]);
    let kept = Command::new("mosquitto_pub")
        .args(["-p", &node.mqtt().port().to_string()])
        .args(["-r", "-q", "1", "-t", "kept", "-m", "x"])
        .status();
    assert!(kept.expect("mosquitto_pub can be run").success());
    // One that is lost: the client is away, and it is QoS 0.
    publish(node.mqtt(), "$reserved", "x");
    let document: Value = serde_json::from_str(&node.get("/api/openapi.json").1).expect("JSON");
    assert_eq!(document["openapi"], "3.0.3");
    let mut described: BTreeMap<(String, String), &Value> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            described.insert((path.clone(), method.clone()), operation);
        }
    }
    for (method, path, query, body) in samples() {
        let operation = described
            .remove(&(path.to_owned(), method.to_owned()))
            .unwrap_or_else(|| panic!("{method} {path} is not described"));
        let url = format!("{}{}{query}", node.http, path.replace("{client_id}", "c"));
        // What is described of the request is what is sent here.
        for part in query
            .trim_start_matches('?')
            .split('&')
            .filter(|part| !part.is_empty())
        {
            let name = part.split('=').next();
            let mut parameters = operation["parameters"].as_array().expect("a list").iter();
            assert!(
                parameters.any(|one| one["name"].as_str() == name && one["in"] == "query"),
                "{method} {path}: {part} is not described"
            );
        }
        let request = ureq::http::Request::builder()
            .method(method.to_uppercase().as_str())
            .uri(&url)
            .header("content-type", "application/json");
        let answered = match &body {
            Some(body) => {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                judge(&document, schema, body, "body").expect("the sample is as described");
                agent().run(request.body(body.to_string()).expect("a request"))
            }
            None => {
                assert!(
                    operation["requestBody"].is_null(),
                    "{method} {path} wants a body"
                );
                agent().run(request.body(()).expect("a request"))
            }
        };
        let mut response = answered.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let text = response.body_mut().read_to_string().expect("text");
        assert_eq!(response.status().as_u16(), 200, "{method} {path}: {text}");
        let described = operation["responses"]["200"]["content"].as_object();
        let (media, content) = described
            .and_then(|all| all.iter().next())
            .expect("a schema");
        let is_lines = media == "application/x-ndjson";
        let answers: Vec<&str> = if is_lines {
            text.lines().collect()
        } else {
            vec![&text]
        };
        assert!(!answers.is_empty(), "{method} {path}: nothing");
        for answer in answers {
            let answer: Value = serde_json::from_str(answer).expect("JSON");
            if let Err(wrong) = judge(&document, &content["schema"], &answer, "answer") {
                panic!("{method} {path}: {wrong}");
            }
        }
    }
    assert!(described.is_empty(), "no samples of {:?}", described.keys());
}
