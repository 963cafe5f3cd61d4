//! HTTP as tests ask it.

use crate::PATIENCE;

/// A client that knows no proxy, gives up after [`PATIENCE`], and shows every status instead of making some an error.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .proxy(None)
        .build()
        .into()
}
