//! A client of the operators' API.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::cli::To;
use crate::exit::Failure;

/// How long an answer may take; the longest walk of the server ends sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer: of a page with very long names.
const ANSWER_BYTES_MAX: u64 = 256 * 1_048_576;

const URL: &str = "MILLSTREAM_URL";
const TOKEN: &str = "MILLSTREAM_TOKEN";
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// See the module.
pub struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

fn agent(patience: Duration) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

/// Text as a part of a path or of what is behind `?`.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // A dot, too: a name that is only dots would be a step in the path.
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Client {
    /// A client of the node that the options or the environment name.
    ///
    /// # Errors
    /// A start failure when the token cannot be read.
    pub fn new(to: &To) -> Result<Self, Failure> {
        let url = to.url.clone().or_else(|| environment(URL));
        let url = url.unwrap_or_else(|| URL_DEFAULT.to_owned());
        let token = match &to.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    Failure::cannot_start(format!(
                        "cannot read the token in {} ({error})",
                        file.display()
                    ))
                })?;
                Some(text.trim().to_owned())
            }
            None => environment(TOKEN),
        };
        Ok(Self {
            agent: agent(PATIENCE),
            url: url.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// Asks, and gives the JSON of the answer.
    ///
    /// # Errors
    /// A start failure when the node cannot be reached or wants a token; that something is not there; or what the node says.
    pub fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let mut response = self.send(method, path, body)?;
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .context("the node's answer broke off")?;
        let answer: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} does not answer as a node does", self.url))?;
        Ok(answer)
    }

    /// The same, as a type.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let answer = self.json(method, path, body)?;
        Ok(serde_json::from_value(answer)
            .context("the node's answer is not what this version of millstream knows")?)
    }

    /// Asks for lines that come for that time, and gives each of them on.
    ///
    /// # Errors
    /// As [`Client::json`], and what `each` returns.
    pub fn lines(
        &self,
        path: &str,
        time: Duration,
        mut each: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let patient = Self {
            agent: agent(time + PATIENCE),
            url: self.url.clone(),
            token: self.token.clone(),
        };
        let mut response = patient.send(Method::GET, path, None)?;
        let lines = BufReader::new(response.body_mut().as_reader()).lines();
        for line in lines {
            each(&line.context("the node's answer broke off")?)?;
        }
        Ok(())
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            // What changes something says that it is JSON, as no page of another origin may.
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let wrong = |why: String| {
            Failure::cannot_start(format!(
                "{:?} is no address of a node ({why}): write http://HOST:PORT",
                self.url
            ))
        };
        let answered = match body {
            Some(body) => {
                let request = request
                    .body(body.to_string())
                    .map_err(|error| wrong(error.to_string()))?;
                self.agent.run(request)
            }
            None => {
                let request = request.body(()).map_err(|error| wrong(error.to_string()))?;
                self.agent.run(request)
            }
        };
        let mut response = answered.map_err(|error| {
            Failure::cannot_start(format!(
                "no node answers at {} ({error}): say where it is with --url or {URL}",
                self.url
            ))
        })?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let error = &said["error"];
        let message = error["message"].as_str().unwrap_or(text.trim());
        let allowed = error["allowed"].as_str();
        let allowed = allowed.map_or_else(String::new, |allowed| format!("; allowed is {allowed}"));
        let says = super::shown(&format!("{message}{allowed}"));
        Err(match status {
            400 | 401 | 403 | 415 | 421 | 422 => {
                Failure::cannot_start(format!("{} refuses: {says}", self.url))
            }
            404 if error.is_object() => Failure::NotFound(says),
            404 => Failure::cannot_start(format!(
                "{} has no operators' API: is it a broker node?",
                self.url
            )),
            _ => Failure::Failed(anyhow::anyhow!("{} answers {status}: {says}", self.url)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_part_of_a_path() {
        assert_eq!(encoded("device-17_a~"), "device-17_a~");
        assert_eq!(encoded("a/b?c#d%"), "a%2Fb%3Fc%23d%25");
        assert_eq!(encoded(".."), "%2E%2E");
        assert_eq!(encoded("ä\u{1b}"), "%C3%A4%1B");
    }
}
