//! `millstream ctl …`: a node looked at and acted upon from a terminal. What it can do is the operators' API's; here it is put
//! into words and tables.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::Method;

use super::print;
use crate::admin::model::{
    Bans, Client as Session, Disconnected, Drained, Drops, Listeners, Log, Page, Receiver,
    Receivers, Reloaded, Retained, RetainedMessage, Subscription, Topics, TraceLine,
};
use crate::cli::{BanWho, Ctl, CtlCommand, Pages, RetainedCommand, TraceOf};
use crate::ctl::{Client, Table, ago, encoded, shown};
use crate::exit::Failure;

/// Items of one request.
const PAGE_MAX: u64 = 1_000;

/// Runs the command.
///
/// # Errors
/// A start failure when nothing was asked; that something is not there; or what the node answered.
pub fn run(ctl: Ctl) -> Result<(), Failure> {
    let node = Client::new(&ctl.to)?;
    let ask = Ask {
        node,
        json: ctl.to.json,
    };
    match ctl.command {
        CtlCommand::Clients {
            id,
            user,
            address,
            connected,
            away,
            mqtt_version,
            pages,
        } => {
            let connected = (connected || away).then(|| connected.to_string());
            let query = [
                ("id", id),
                ("user", user),
                ("address", address),
                ("connected", connected),
                ("version", mqtt_version),
            ];
            ask.list("/api/admin/clients", &query, &pages, clients)
        }
        CtlCommand::Client { id } => ask.show(
            Method::GET,
            &of_client(&id, ""),
            None,
            |client: &Session| one_client(client),
        ),
        CtlCommand::Disconnect {
            id,
            reason,
            end_session,
        } => {
            let body = json!({"reason": reason, "end_session": end_session});
            let path = of_client(&id, "/disconnect");
            ask.show(Method::POST, &path, Some(&body), |done: &Disconnected| {
                let connection = if done.was_connected {
                    "was disconnected"
                } else {
                    "was not connected"
                };
                let session = if done.session_ended {
                    "its session has ended"
                } else {
                    "its session stays"
                };
                format!("{} {connection}; {session}\n", shown(&done.client_id))
            })
        }
        CtlCommand::Ban { who, seconds, why } => {
            let BanWho { id, address } = who;
            let body = json!({"client_id": id, "address": address, "seconds": seconds, "why": why});
            let path = "/api/admin/bans";
            ask.show(Method::POST, path, Some(&body), |done: &Bans| {
                format!("{} disconnected\n{}", done.disconnected, bans(done))
            })
        }
        CtlCommand::Unban { who } => {
            let query = [("client_id", who.id), ("address", who.address)];
            let path = with_query("/api/admin/bans", &query);
            ask.show(Method::DELETE, &path, None, bans)
        }
        CtlCommand::Bans => ask.show(Method::GET, "/api/admin/bans", None, bans),
        CtlCommand::Subscriptions {
            client,
            filter,
            pages,
        } => {
            let query = [("client", client), ("filter", filter)];
            ask.list("/api/admin/subscriptions", &query, &pages, subscriptions)
        }
        CtlCommand::Who { topic } => {
            let path = with_query("/api/admin/receivers", &[("topic", Some(topic))]);
            ask.show(Method::GET, &path, None, who)
        }
        CtlCommand::Retained { command } => retained(&ask, command),
        CtlCommand::Drops {
            client,
            topic,
            reason,
            limit,
        } => {
            let query = [
                ("client", client),
                ("topic", topic),
                ("reason", reason),
                ("limit", limit.map(|limit| limit.to_string())),
            ];
            ask.show(
                Method::GET,
                &with_query("/api/admin/drops", &query),
                None,
                drops,
            )
        }
        CtlCommand::Topics { seconds, top } => {
            let query = [
                ("seconds", Some(seconds.to_string())),
                ("top", Some(top.to_string())),
            ];
            ask.show(
                Method::GET,
                &with_query("/api/admin/topics", &query),
                None,
                topics,
            )
        }
        CtlCommand::Trace { of, seconds, lines } => {
            let TraceOf { client, topic } = of;
            let query = [
                ("client", client),
                ("topic", topic),
                ("seconds", Some(seconds.to_string())),
                ("lines", Some(lines.to_string())),
            ];
            trace(&ask, &with_query("/api/admin/trace", &query), seconds)
        }
        CtlCommand::Listeners => ask.show(
            Method::GET,
            "/api/admin/listeners",
            None,
            |all: &Listeners| {
                let mut table = Table::new(&["name", "address", "transport"]);
                for one in &all.listeners {
                    table.row(&[&one.name, &one.address, &one.transport]);
                }
                table.text()
            },
        ),
        CtlCommand::Log { filter } => {
            let (method, body) = match filter {
                Some(filter) => (Method::PUT, Some(json!({"filter": filter}))),
                None => (Method::GET, None),
            };
            let path = "/api/admin/log";
            ask.show(method, path, body.as_ref(), |log: &Log| {
                shown(&log.filter) + "\n"
            })
        }
        CtlCommand::Reload => ask.show(Method::POST, "/api/admin/reload", None, reloaded),
        CtlCommand::Drain => {
            let path = "/api/admin/drain";
            ask.show(Method::POST, path, None, |drained: &Drained| {
                drained.says.clone() + "\n"
            })
        }
    }
}

/// A node, and how its answers are printed.
struct Ask {
    node: Client,
    json: bool,
}

impl Ask {
    /// Prints one answer.
    fn show<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        text: impl Fn(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            return print_json(&self.node.json(method, path, body)?);
        }
        print(&text(&self.node.ask(method, path, body)?))
    }

    /// Prints as many pages of a list as it takes.
    fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        pages: &Pages,
        text: impl Fn(&[T]) -> String,
    ) -> Result<(), Failure> {
        let mut items: Vec<Value> = Vec::new();
        let mut next = pages.cursor.clone();
        loop {
            let room = pages.limit - items.len() as u64;
            let mut query = query.to_vec();
            query.push(("limit", Some(room.min(PAGE_MAX).to_string())));
            query.push(("cursor", next));
            let page: Page<Value> = self
                .node
                .ask(Method::GET, &with_query(path, &query), None)?;
            items.extend(page.items);
            next = page.next;
            if next.is_none() || items.len() as u64 >= pages.limit {
                break;
            }
        }
        if self.json {
            return print_json(&json!({"items": items, "next": next}));
        }
        let items: Vec<T> = serde_json::from_value(items.into())
            .context("the node's answer is not what this version of millstream knows")?;
        print(&text(&items))?;
        if let Some(next) = next {
            // Beside the table, which may go into a pipe.
            eprintln!("there are more: --cursor {}", shell(&next));
        }
        Ok(())
    }
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    format!("'{}'", shown(word).replace('\'', "'\\''"))
}

fn print_json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).context("JSON cannot be written")?;
    print(&(text + "\n"))
}

fn of_client(id: &str, what: &str) -> String {
    format!("/api/admin/clients/{}{what}", encoded(id))
}

fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let given = query
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", given.join("&"))
}

fn clients(clients: &[Session]) -> String {
    let mut table = Table::new(&[
        "client",
        "state",
        "since",
        "address",
        "mqtt",
        "subs",
        "in flight",
        "queue",
        "bytes",
    ]);
    for client in clients {
        let state = if client.connected {
            "connected"
        } else {
            "away"
        };
        table.row(&[
            &client.client_id,
            state,
            &ago(client.since_ms),
            client.address.as_deref().unwrap_or("-"),
            &client.version,
            &client.subscriptions.to_string(),
            &client.in_flight.to_string(),
            &client.queue_messages.to_string(),
            &client.queue_bytes.to_string(),
        ]);
    }
    table.text()
}

fn one_client(client: &Session) -> String {
    let mut table = Table::new(&["client", ""]);
    table.row(&["identifier", &client.client_id]);
    let since = ago(client.since_ms);
    let state = if client.connected {
        format!("connected for {since}")
    } else {
        let ends = ago(client.ends_in_ms.unwrap_or(0));
        format!("away for {since}; its session ends in {ends}")
    };
    table.row(&["state", &state]);
    if let Some(user) = &client.user {
        table.row(&["user", user]);
    }
    if let Some(address) = &client.address {
        table.row(&["address", address]);
    }
    table.row(&["version", &client.version]);
    if let Some(heard) = client.heard_ms {
        table.row(&["last packet", &format!("{} ago", ago(heard))]);
    }
    if let Some(keep_alive) = client.keep_alive_s {
        let text = match keep_alive {
            0 => "none".to_owned(),
            seconds => format!("{seconds} s"),
        };
        table.row(&["keep-alive", &text]);
    }
    table.row(&["clean start", if client.clean_start { "yes" } else { "no" }]);
    table.row(&["session expiry", &format!("{} s", client.expiry_s)]);
    table.row(&["subscriptions", &client.subscriptions.to_string()]);
    let queue = format!(
        "{} messages, {} bytes",
        client.queue_messages, client.queue_bytes
    );
    table.row(&["queue", &queue]);
    let in_flight = format!("{} of {}", client.in_flight, client.in_flight_max);
    table.row(&["in flight to it", &in_flight]);
    table.row(&[
        "waits for its socket",
        &format!("{} bytes", client.outbox_bytes),
    ]);
    table.row(&["its publishes unanswered", &client.unanswered.to_string()]);
    if client.held {
        table.row(&["its publishes", "wait for room"]);
    }
    if let Some(will) = &client.will {
        table.row(&["will", will]);
    }
    if let Some(bytes) = client.packet_bytes_max {
        table.row(&["takes packets of", &format!("{bytes} bytes")]);
    }
    // The line of headers says nothing here.
    let text = table.text();
    text.split_once('\n')
        .map_or_else(String::new, |(_, rows)| rows.to_owned())
}

fn bans(bans: &Bans) -> String {
    let mut table = Table::new(&["who", "since", "ends in", "refused", "why"]);
    for ban in &bans.bans {
        let who = match (&ban.client_id, &ban.address) {
            (Some(client), _) => format!("client {client}"),
            (None, address) => format!("address {}", address.as_deref().unwrap_or("-")),
        };
        table.row(&[
            &who,
            &ago(ban.since_ms),
            &ago(ban.ends_in_ms),
            &ban.refused.to_string(),
            &ban.why,
        ]);
    }
    table.text()
}

fn subscriptions(subscriptions: &[Subscription]) -> String {
    let mut table = Table::new(&["client", "filter", "qos", "options"]);
    for one in subscriptions {
        let mut options = Vec::new();
        if one.no_local {
            options.push("no local".to_owned());
        }
        if one.retain_as_published {
            options.push("retain as published".to_owned());
        }
        if let Some(identifier) = one.identifier {
            options.push(format!("identifier {identifier}"));
        }
        table.row(&[
            &one.client_id,
            &one.filter,
            &one.qos.to_string(),
            &options.join(", "),
        ]);
    }
    table.text()
}

fn who(receivers: &Receivers) -> String {
    let mut table = Table::new(&["client", "state", "qos", "by"]);
    let mut add = |receiver: &Receiver, group: &str| {
        let state = if receiver.connected {
            "connected"
        } else {
            "away"
        };
        table.row(&[
            &receiver.client_id,
            state,
            &receiver.qos.to_string(),
            &format!("{}{group}", receiver.filters.join(" ")),
        ]);
    };
    for receiver in &receivers.sessions {
        add(receiver, "");
    }
    for group in &receivers.groups {
        for member in &group.members {
            add(member, &format!(" (one of {})", group.members_total));
        }
    }
    let mut text = table.text();
    let named = receivers.sessions.len() as u64;
    if named < receivers.subscriptions_total {
        text.push_str(&format!(
            "{} subscriptions match; {named} clients are named\n",
            receivers.subscriptions_total
        ));
    }
    text
}

fn topics(topics: &Topics) -> String {
    let mut table = Table::new(&["topic", "publishes", "per second", "bytes", "deliveries"]);
    for one in &topics.topics {
        table.row(&[
            &one.topic,
            &one.publishes.to_string(),
            &format!("{:.1}", one.per_second),
            &one.bytes.to_string(),
            &one.deliveries.to_string(),
        ]);
    }
    let mut text = table.text();
    text.push_str(&format!(
        "{} publishes in {:.1} s",
        topics.publishes, topics.seconds
    ));
    if topics.missed_max > 0 {
        text.push_str(&format!("; counts may be {} too small", topics.missed_max));
    }
    text + "\n"
}

fn trace(ask: &Ask, path: &str, seconds: u64) -> Result<(), Failure> {
    ask.node.lines(path, Duration::from_secs(seconds), |line| {
        if ask.json {
            return print(&format!("{line}\n"));
        }
        let line: TraceLine = serde_json::from_str(line)
            .context("the node's answer is not what this version of millstream knows")?;
        let (s, ms) = (line.ms / 1_000, line.ms % 1_000);
        let mark = match line.kind.as_str() {
            "received" => "<-",
            "sent" => "->",
            "delivery" => "=>",
            _ => "--",
        };
        let (client, text) = (shown(&line.client_id), shown(&line.text));
        print(&format!("{s:>4}.{ms:03} {mark} {client} {text}\n"))
    })
}

fn drops(drops: &Drops) -> String {
    let mut table = Table::new(&["client", "topic", "reason", "times", "first", "last"]);
    for lost in &drops.items {
        table.row(&[
            &lost.client_id,
            &lost.topic,
            &lost.reason,
            &lost.times.to_string(),
            &format!("{} ago", ago(lost.first_ms)),
            &format!("{} ago", ago(lost.last_ms)),
        ]);
    }
    let mut text = table.text();
    for forgotten in &drops.forgotten {
        let (reason, times) = (&forgotten.reason, forgotten.times);
        text.push_str(&format!(
            "forgotten for want of room: {times} of {reason}\n"
        ));
    }
    text
}

fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for change in &reloaded.changed {
        text.push_str(&format!("changed: {}\n", shown(change)));
    }
    for change in &reloaded.needs_restart {
        text.push_str(&format!("needs a restart: {}\n", shown(change)));
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    text
}

fn retained(ask: &Ask, command: RetainedCommand) -> Result<(), Failure> {
    let of = |topic: String| with_query("/api/admin/retained/message", &[("topic", Some(topic))]);
    match command {
        RetainedCommand::List { filter, pages } => {
            let query = [("filter", Some(filter))];
            let rows = |all: &[Retained]| {
                let mut table = Table::new(&["topic", "qos", "bytes", "expires in"]);
                for one in all {
                    let expires = one.expires_in_ms.map_or_else(|| "-".to_owned(), ago);
                    table.row(&[
                        &one.topic,
                        &one.qos.to_string(),
                        &one.payload_bytes.to_string(),
                        &expires,
                    ]);
                }
                table.text()
            };
            ask.list("/api/admin/retained", &query, &pages, rows)
        }
        RetainedCommand::Read { topic } => {
            let path = of(topic);
            if ask.json {
                return print_json(&ask.node.json(Method::GET, &path, None)?);
            }
            let message: RetainedMessage = ask.node.ask(Method::GET, &path, None)?;
            let payload = match (message.text, message.base64) {
                (Some(text), _) => text.into_bytes(),
                (None, Some(text)) => STANDARD.decode(text).context("that is no base64")?,
                (None, None) => Vec::new(),
            };
            write_payload(&payload)
        }
        RetainedCommand::Delete { topics } => {
            for topic in topics {
                ask.show(Method::DELETE, &of(topic), None, |was: &RetainedMessage| {
                    format!(
                        "deleted: {} ({} bytes)\n",
                        shown(&was.topic),
                        was.payload_bytes
                    )
                })?;
            }
            Ok(())
        }
    }
}

/// Writes a payload as it is, unless a terminal would take it for commands.
fn write_payload(payload: &[u8]) -> Result<(), Failure> {
    use std::io::IsTerminal;
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        drop(out);
        return print(&(shown(&String::from_utf8_lossy(payload)) + "\n"));
    }
    match out.write_all(payload) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to standard output")?),
    }
}
