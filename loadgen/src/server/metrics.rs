//! Counters at an address that serves Prometheus' text format.

use std::collections::BTreeMap;
use std::time::Duration;

/// An address that does not answer in this time has no metrics.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Series that are kept; further ones are left out.
const SERIES_MAX: usize = 10_000;

/// Values of counters, by name with labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// By how much each has grown since `before`; those that have not are left out.
    #[must_use]
    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        self.0
            .iter()
            .filter_map(|(name, value)| {
                let grown = value - before.0.get(name).copied().unwrap_or(0.0);
                (grown > 0.0).then(|| (name.clone(), grown))
            })
            .collect()
    }
}

/// Reads the counters; an error says in a few words what happened.
pub(super) fn read(url: &str) -> Result<Counters, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let text = response
        .body_mut()
        .read_to_string()
        .map_err(|error| error.to_string())?;
    let counters = parse(&text);
    if counters.0.is_empty() {
        return Err("there are no counters in Prometheus' text format".to_owned());
    }
    Ok(counters)
}

/// Takes what is declared a counter, and what is named like one.
fn parse(text: &str) -> Counters {
    let mut declared = "";
    let mut is_counter = false;
    let mut counters = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let mut words = rest.split_ascii_whitespace();
            declared = words.next().unwrap_or("");
            is_counter = words.next() == Some("counter");
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or("");
        let counts = (name == declared && is_counter) || name.ends_with("_total");
        if let Ok(value) = value.parse::<f64>()
            && counts
            && !line.starts_with('#')
            && counters.len() < SERIES_MAX
        {
            counters.insert(series.to_owned(), value);
        }
    }
    Counters(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_from_gauges_and_compared() {
        let before = parse("# TYPE a counter\na{x=\"1 2\"} 5\n# TYPE g gauge\ng 3\nb_total 1\n");
        let after = parse(
            "# TYPE a counter\na{x=\"1 2\"} 9\n# TYPE g gauge\ng 8\nb_total 1\nnew_total 2\n",
        );
        let grown = after.since(&before);
        let grown: Vec<(&str, f64)> = grown.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(grown, [("a{x=\"1 2\"}", 4.0), ("new_total", 2.0)]);
    }

    #[test]
    fn an_address_without_metrics_is_an_error() {
        assert!(read("http://127.0.0.1:1/metrics").is_err());
    }
}
