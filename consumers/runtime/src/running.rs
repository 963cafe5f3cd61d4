//! A backend at work: its consumer, what runs beside it, its store and its HTTP API, served and ended as one.

use std::future::Future;

use axum::Router;
use prometheus::Registry;
use tokio::sync::watch;

use crate::companions::Companions;
use crate::consumer::Consumer;
use crate::growth::{Forget, Growth};
use crate::http::operator_routes;
use crate::status::{State, Status};
use crate::store::Store;

/// What a backend is made of; [`Parts::run`] makes it one thing.
#[derive(Debug)]
pub struct Parts {
    /// Reads and handles.
    pub consumer: Consumer,
    /// The metrics of the backend and of its consumer.
    pub registry: Registry,
    /// Where effects are kept.
    pub store: Store,
    growth: Growth,
    companions: Companions,
}

impl Parts {
    /// The parts that every backend has.
    #[must_use]
    pub fn new(consumer: Consumer, registry: Registry, store: Store, growth: Growth) -> Self {
        let mut companions = Companions::new();
        companions.spawn(growth.clone().measure(companions.stopped()));
        Self {
            consumer,
            registry,
            store,
            growth,
            companions,
        }
    }

    /// Has `what` delete what is over, as long as the backend runs.
    pub fn forget(&mut self, what: impl Forget) {
        let forgetting = self.growth.clone().forget(what, self.stopped());
        self.companions.spawn(forgetting);
    }

    /// Changes when the backend ends, for what is to end with it.
    #[must_use]
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.companions.stopped()
    }

    /// Starts what runs beside the consumer; it ends by itself when [`Parts::stopped`] changes.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.companions.spawn(task);
    }

    /// The backend, with `api` and the pages for operators as its HTTP API.
    #[must_use]
    pub fn run(self, api: Router) -> Running {
        let (of_consumer, growth) = (self.consumer.clone(), self.growth.clone());
        let status = move || {
            let mut status = of_consumer.status();
            growth.describe(&mut status);
            status
        };
        let operators = operator_routes(status, self.registry.clone());
        Running {
            router: api.merge(operators),
            parts: self,
        }
    }
}

/// A backend, started.
#[derive(Debug)]
pub struct Running {
    parts: Parts,
    router: Router,
}

impl Running {
    /// The HTTP API, with `/health`, `/status` and `/metrics`. All links in it are relative: nest it anywhere.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The metrics of the backend and of its consumer.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.parts.registry
    }

    /// What the consumer does. A backend that is not whole any more, because what runs beside it panicked, has failed.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.parts.consumer.status();
        self.parts.growth.describe(&mut status);
        if let Some(problem) = self.parts.companions.problem() {
            (status.state, status.problem) = (State::Failed, Some(problem));
        }
        status
    }

    /// Completes when the consumer has ended: with the reason when it stopped by itself.
    ///
    /// # Errors
    ///
    /// The reason in one sentence.
    pub async fn ended(&self) -> Result<(), String> {
        self.parts.consumer.ended().await
    }

    /// Ends what runs beside the consumer, finishes what was begun, commits, leaves the group and closes the store. What was
    /// stored to be done later stays stored.
    pub async fn shutdown(self) {
        let parts = self.parts;
        parts.companions.stop();
        if let Err(reason) = parts.consumer.shutdown().await {
            tracing::error!(reason, "the consumer had stopped before");
        }
        parts.companions.ended().await;
        parts.store.close().await;
    }
}
