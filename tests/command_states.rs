//! What a command came to, as the IoT backend says it by what the nodes report: each state by the real binary, a real Kafka
//! and clients that are not ours.

use serde_json::{Value, json};
use testkit::clients::{self, Subscriber};
use testkit::eventually;
use testkit::kafka::Kafka;
use testkit::millstream::{Millstream, configuration};

struct Parts {
    node: Millstream,
    iot: Millstream,
}

impl Parts {
    fn start(kafka: &Kafka, data: &tempfile::TempDir, expiry_s: u32) -> Self {
        let config = configuration(data, &format!("iot.command_expiry_s = {expiry_s}\n"));
        let common = ["--kafka", kafka.bootstrap(), "--config", &config];
        let http = ["--http", "127.0.0.1:0"];
        let mqtt = ["--mqtt", "127.0.0.1:0"];
        let node = Millstream::start(&[&["broker"][..], &common, &mqtt, &http].concat());
        let database = format!("sqlite:{}", data.path().join("iot.db").display());
        let database = ["--database", &database];
        let iot = Millstream::start(&[&["iot"][..], &common, &database, &http].concat());
        Self { node, iot }
    }

    fn command(&self, device: &str) -> String {
        let path = format!("/api/devices/{device}/commands/open");
        let posted = self.iot.post(&path, &json!({}));
        posted["id"].as_str().expect("an identifier").to_owned()
    }

    fn status(&self, id: &str) -> Value {
        self.iot.json(&format!("/api/commands/{id}"))
    }

    /// Waits for a state; returns all that is said then.
    fn until(&self, id: &str, status: &str) -> Value {
        eventually(&format!("the command {id} is {status}"), || {
            let shown = self.status(id);
            (shown["status"] == status).then_some(shown)
        })
    }

    fn says(&self, line: &str) -> bool {
        self.node.get("/metrics").1.lines().any(|said| said == line)
    }
}

#[test]
fn a_command_says_whether_a_device_has_it() {
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let parts = Parts::start(&kafka, &data, 6);
    let mqtt = parts.node.mqtt();

    let here = Subscriber::start(mqtt, &["devices/here/commands/#"]);
    let delivered = parts.command("here");
    let shown = parts.until(&delivered, "delivered");
    assert_eq!(shown["report"]["outcome"], "delivered", "{shown}");
    assert_eq!(shown["report"]["sessions"], 1, "{shown}");
    here.on("devices/here/commands/open");

    drop(Subscriber::kept(mqtt, "away", &["devices/away/commands/#"]));
    eventually("it is away", || {
        parts.says("millstream_broker_clients 1").then_some(())
    });
    let never = parts.command("away");
    parts.until(&never, "queued");
    let nobodys = parts.command("nobody");
    let shown = parts.until(&nobodys, "no-receiver");
    assert_eq!(shown["report"]["outcome"], "waiting", "{shown}");
    parts.until(&never, "expired");
    parts.until(&nobodys, "expired");

    let late = parts.command("away");
    parts.until(&late, "queued");
    let away = Subscriber::kept(mqtt, "away", &["devices/away/commands/#"]);
    parts.until(&late, "delivered");
    let payload = away.on("devices/away/commands/open");
    assert!(
        payload.contains(&late),
        "what expired does not come: {payload}"
    );

    let comes = parts.command("comes");
    parts.until(&comes, "no-receiver");
    let device = Subscriber::start(mqtt, &["devices/comes/commands/#"]);
    parts.until(&comes, "delivered");
    device.on("devices/comes/commands/open");
    let reply = json!({"id": comes, "ok": true}).to_string();
    clients::publish(mqtt, "devices/comes/replies/open", &reply);
    parts.until(&comes, "replied");

    // Long after they would have expired.
    assert_eq!(parts.status(&delivered)["status"], "delivered");
    let health = parts.iot.json("/status");
    assert_eq!(health["dead_letters"], 0, "{health}");
}

#[test]
fn a_node_whose_listener_cannot_be_opened_takes_nothing_from_the_downlink() {
    let kafka = Kafka::start();
    let data = tempfile::tempdir().expect("a directory");
    let parts = Parts::start(&kafka, &data, 300);
    let Parts { node, iot } = parts;
    assert!(node.terminate().status.success());
    let posted = iot.post("/api/devices/d/commands/open", &json!({}));
    let id = posted["id"].as_str().expect("an identifier");
    let path = format!("/api/commands/{id}");
    eventually("Kafka has the command", || {
        (iot.json(&path)["status"] == "sent").then_some(())
    });

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("has an address").to_string();
    let config = configuration(&data, "");
    let arguments = ["broker", "--kafka", kafka.bootstrap(), "--config", &config];
    let listen = ["--mqtt", &address, "--http", "127.0.0.1:0"];
    let ended = testkit::millstream::run(&[&arguments[..], &listen].concat());
    assert_eq!(ended.status.code(), Some(2), "{}", ended.err);
    let reports = clients::kafka_values(kafka.bootstrap(), "mqtt.downlink.reports");
    assert_eq!(reports, [] as [String; 0], "it told of nothing");
    assert_eq!(iot.json(&path)["status"], "sent", "nobody has looked at it");
}
