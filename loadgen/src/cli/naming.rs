//! Whoever changed a scenario by an option is told about the option, not about the line of a file that he has not written.

use super::args::RunArgs;
use super::options::LoadError;
use crate::scenario::{PreflightError, ScenarioError};

/// An error of a scenario, in terms of the options that were given.
pub(super) fn scenario(error: ScenarioError, args: &RunArgs) -> LoadError {
    let options = [
        ("clients", "--clients", args.clients.is_some()),
        ("rate", "--rate", args.rate.is_some()),
        ("rate", "--highest", args.highest),
        ("per_second", "--connect-rate", args.connect_rate.is_some()),
        ("per_second", "--rate", args.rate.is_some()),
        ("run.seconds", "--seconds", args.seconds.is_some()),
        ("warm_up_s", "--warm-up", args.warm_up.is_some()),
        ("drain_max_s", "--drain", args.drain.is_some()),
        (
            "payload_bytes",
            "--payload-bytes",
            args.payload_bytes.is_some(),
        ),
        (
            "payload_bytes and window",
            "--payload-bytes or --window",
            true,
        ),
        ("qos", "--qos", args.qos.is_some()),
        ("keep_alive_s", "--keep-alive", args.keep_alive.is_some()),
        ("window", "--window", args.window.is_some()),
        ("burst", "--burst", args.burst.is_some()),
        ("topic", "--topic-prefix", args.topic_prefix.is_some()),
        ("topic_prefix", "--topic-prefix", true),
        ("filter", "--topic-prefix", args.topic_prefix.is_some()),
        ("username", "--username", args.username.is_some()),
        ("password", "--password-file", args.password_file.is_some()),
    ];
    let option_for = |key: &str| {
        options.iter().find_map(|(suffix, option, given)| {
            let before = key.strip_suffix(suffix)?;
            let whole = before.is_empty() || before.ends_with([' ', '.']);
            (*given && whole).then_some(*option)
        })
    };
    // Keys that nobody wrote, and an option that they do not go together with any more.
    let cause = match &error {
        ScenarioError::Value { key, .. } | ScenarioError::Refused { key, .. } => [
            ("storms_at_s", "--seconds", args.seconds.is_some()),
            ("topics", "--clients", args.clients.is_some()),
        ]
        .iter()
        .find_map(|(suffix, option, given)| (*given && key.ends_with(suffix)).then_some(*option)),
        _ => None,
    };
    if let Some(option) = cause {
        return LoadError::Option(format!("{option}: {error}"));
    }
    match error {
        ScenarioError::Value {
            key,
            value,
            allowed,
        } => LoadError::Option(match option_for(&key) {
            Some("--topic-prefix") => format!("--topic-prefix: {key} is {value}; {allowed}"),
            Some(option) => format!("{option} is {value}; {allowed}"),
            None => {
                return ScenarioError::Value {
                    key,
                    value,
                    allowed,
                }
                .into();
            }
        }),
        ScenarioError::Refused { key, why } => match option_for(&key) {
            Some(option) => LoadError::Option(format!("{option}: {why}")),
            None => ScenarioError::Refused { key, why }.into(),
        },
        other => other.into(),
    }
}

/// What the machine lacks, with the option that asked for it.
pub(super) fn preflight(error: PreflightError, args: &RunArgs) -> LoadError {
    let option = match &error {
        PreflightError::Processes(given) => {
            let error = PreflightError::Processes(*given);
            return LoadError::Option(format!("--{error}"));
        }
        PreflightError::Files { .. } if args.processes.is_some() => "--processes",
        PreflightError::Family { .. } | PreflightError::Twice(_) => "--source-addresses",
        PreflightError::Ports { .. } if !args.source_addresses.is_empty() => "--source-addresses",
        PreflightError::Files { .. }
        | PreflightError::Ports { .. }
        | PreflightError::Memory { .. }
            if args.clients.is_some() =>
        {
            "--clients"
        }
        _ => return error.into(),
    };
    LoadError::Option(format!("{option}: {error}"))
}
