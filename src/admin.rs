//! The operators' API: what a node's clients are and do, what waits for them and what they lost, and what an operator does
//! about it. `millstream ctl` is its first user. All operations are in one table ([`operations`]), of which both the routes
//! and the OpenAPI document are made, so that neither can be without the other.

mod ask;
mod bans;
mod clients;
mod drops;
pub mod model;
mod openapi;
mod process;
mod retained;
mod subscriptions;
mod topics;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::node::Node;
use crate::reload::Reloader;

/// Where the document is.
pub const DOCUMENT: &str = "/api/openapi.json";

/// What the operations work on.
pub struct Admin {
    broker: broker::Handle,
    node: Arc<Node>,
    reloader: Arc<Reloader>,
}

impl Admin {
    /// The API of this node.
    pub fn new(broker: broker::Handle, node: Arc<Node>, reloader: Arc<Reloader>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            node,
            reloader,
        })
    }
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation, as the routes and the document see it.
struct Operation {
    method: Method,
    path: &'static str,
    summary: &'static str,
    /// The parameters behind `?`, as the schema of an object.
    query: Option<SchemaOf>,
    body: Option<SchemaOf>,
    answer: Option<SchemaOf>,
    /// What `answer` is written as.
    media: &'static str,
    route: MethodRouter<Arc<Admin>>,
}

impl Operation {
    fn new<H, T>(method: Method, path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Admin>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self {
            method,
            path,
            summary,
            query: None,
            body: None,
            answer: None,
            media: "application/json",
            route: on(filter, handler),
        }
    }

    fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(T::json_schema);
        self
    }

    fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    fn answers_lines<T: JsonSchema>(self) -> Self {
        let mut this = self.answer::<T>();
        this.media = "application/x-ndjson";
        this
    }

    fn answer<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(SchemaGenerator::subschema_for::<T>);
        self
    }
}

/// All operations.
fn operations() -> Vec<Operation> {
    use model::{
        BanRequest, Bans, Client, Disconnect, Disconnected, Drained, Drops, Listeners, Log, Page,
        Receivers, Reloaded, Retained, RetainedMessage, Subscription, Topics, TraceLine,
    };
    vec![
        Operation::new(
            Method::GET,
            "/api/admin/clients",
            "Clients and their sessions, connected or away, a page at a time",
            clients::list,
        )
        .query::<clients::Filter>()
        .answer::<Page<Client>>(),
        Operation::new(
            Method::GET,
            "/api/admin/clients/{client_id}",
            "One client's session",
            clients::show,
        )
        .answer::<Client>(),
        Operation::new(
            Method::POST,
            "/api/admin/clients/{client_id}/disconnect",
            "Disconnects a client; its session stays unless it is to end",
            clients::disconnect,
        )
        .body::<Disconnect>()
        .answer::<Disconnected>(),
        Operation::new(
            Method::GET,
            "/api/admin/subscriptions",
            "Subscriptions, a page at a time",
            subscriptions::list,
        )
        .query::<subscriptions::Filter>()
        .answer::<Page<Subscription>>(),
        Operation::new(
            Method::GET,
            "/api/admin/receivers",
            "Who would get a message on a topic now",
            subscriptions::receivers,
        )
        .query::<subscriptions::Topic>()
        .answer::<Receivers>(),
        Operation::new(
            Method::GET,
            "/api/admin/retained",
            "Retained messages without their payloads, a page at a time",
            retained::list,
        )
        .query::<retained::Filter>()
        .answer::<Page<Retained>>(),
        Operation::new(
            Method::GET,
            "/api/admin/retained/message",
            "The retained message of one topic, with its payload",
            retained::read,
        )
        .query::<retained::Topic>()
        .answer::<RetainedMessage>(),
        Operation::new(
            Method::DELETE,
            "/api/admin/retained/message",
            "Forgets the retained message of one topic, as an empty retained publish does: subscribers get that",
            retained::delete,
        )
        .query::<retained::Topic>()
        .answer::<RetainedMessage>(),
        Operation::new(
            Method::GET,
            "/api/admin/drops",
            "Who lost what: drops, refusals and kicks by client, topic and reason, the latest first",
            drops::list,
        )
        .query::<drops::Filter>()
        .answer::<Drops>(),
        Operation::new(
            Method::GET,
            "/api/admin/bans",
            "Who may not connect, and until when; bans are in memory and end with the process",
            bans::list,
        )
        .answer::<Bans>(),
        Operation::new(
            Method::POST,
            "/api/admin/bans",
            "Bans a client identifier or an address for a time, and disconnects whom it concerns",
            bans::ban,
        )
        .body::<BanRequest>()
        .answer::<Bans>(),
        Operation::new(Method::DELETE, "/api/admin/bans", "Lifts a ban", bans::lift)
            .query::<bans::Who>()
            .answer::<Bans>(),
        Operation::new(
            Method::GET,
            "/api/admin/topics",
            "The topics with most publishes, counted from now on for some seconds",
            topics::top,
        )
        .query::<topics::Filter>()
        .answer::<Topics>(),
        Operation::new(
            Method::GET,
            "/api/admin/trace",
            "All packets of a client, or what happens to the messages of a topic, as they come: one JSON object a line",
            trace::trace,
        )
        .query::<trace::Filter>()
        .answers_lines::<TraceLine>(),
        Operation::new(
            Method::GET,
            "/api/admin/listeners",
            "Where this node listens",
            process::listeners,
        )
        .answer::<Listeners>(),
        Operation::new(
            Method::GET,
            "/api/admin/log",
            "What is logged",
            process::log,
        )
        .answer::<Log>(),
        Operation::new(
            Method::PUT,
            "/api/admin/log",
            "Changes what is logged, until the next restart",
            process::set_log,
        )
        .body::<Log>()
        .answer::<Log>(),
        Operation::new(
            Method::POST,
            "/api/admin/reload",
            "Reads the configuration again and takes over what can be changed at run time: all of it or nothing",
            process::reload,
        )
        .answer::<Reloaded>(),
        Operation::new(
            Method::POST,
            "/api/admin/drain",
            "Drains this node and ends its process, as SIGTERM does",
            process::drain,
        )
        .answer::<Drained>(),
    ]
}

/// The operations as routes. Whoever serves them has to guard them.
pub fn routes(admin: Arc<Admin>) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        router = router.route(operation.path, operation.route);
    }
    router.with_state(admin)
}

/// The document about all operations, which anybody may read.
pub fn document() -> Router {
    Router::new().route(DOCUMENT, get(|| async { Document.into_response() }))
}

struct Document;

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        axum::Json(openapi::document(&operations())).into_response()
    }
}
