//! Records posted to an HTTP endpoint, one after another, each as the JSON of a [`Line`].

use std::fmt;
use std::time::{Duration, Instant};

use crate::Error;
use crate::line::Line;

/// How long one request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses before a request is made again: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long an endpoint may not answer before the replay fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Posts records.
pub struct Posts {
    agent: ureq::Agent,
    url: String,
}

impl fmt::Debug for Posts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posts").finish_non_exhaustive()
    }
}

/// What came of a request.
enum Answer {
    Taken,
    /// It may be taken later.
    Again(String),
    /// It never will be.
    Refused(String),
}

impl Posts {
    /// To `url`.
    ///
    /// # Errors
    /// It is none of HTTP.
    pub fn to(url: &str) -> Result<Self, Error> {
        let scheme = url.split_once("://").filter(|(_, rest)| !rest.is_empty());
        if !matches!(scheme, Some(("http" | "https", _))) {
            let allowed = "an address such as https://host/path";
            return Err(Error::option("--to-http", url, allowed));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Ok(Self {
            agent: config.into(),
            url: url.to_owned(),
        })
    }

    pub(crate) fn write(&mut self, record: &Line<'_>) -> Result<(), Error> {
        let what = format!("post {}", record.origin());
        let body = serde_json::to_vec(record).map_err(|error| Error::failed(&*what, error))?;
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            match self.post(&body) {
                Answer::Taken => return Ok(()),
                Answer::Refused(why) => return Err(Error::failed(what, why)),
                Answer::Again(why) if started.elapsed() >= PATIENCE => {
                    return Err(Error::failed(what, why));
                }
                Answer::Again(why) => {
                    tracing::warn!(
                        why,
                        "the endpoint does not take a record now; it is posted again"
                    );
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn post(&self, body: &[u8]) -> Answer {
        let request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json");
        match request.send(body) {
            Ok(mut response) => {
                let status = response.status().as_u16();
                // Read to its end, so that the connection can be used again.
                let said = response
                    .body_mut()
                    .with_config()
                    .limit(1_024)
                    .read_to_string();
                let said = said.unwrap_or_default();
                let why = format!("the endpoint answers {status}: {}", said.trim());
                match status {
                    200..300 => Answer::Taken,
                    408 | 425 | 429 | 500.. => Answer::Again(why),
                    _ => Answer::Refused(why),
                }
            }
            Err(error) => Answer::Again(error.to_string()),
        }
    }
}
