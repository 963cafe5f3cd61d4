//! More or fewer clients in the same ratios.

use super::check::grouped;
use super::error::ScenarioError;
use super::file::Scenario;
use super::limits::CLIENTS_MAX;
use super::overrides::Clients;

/// Scales the groups that are not fixed by whole multiples of their smallest whole ratios.
pub(super) fn scale(scenario: &mut Scenario, to: Clients) -> Result<(), ScenarioError> {
    let fixed: i64 = scenario
        .groups
        .iter()
        .filter(|group| group.fixed)
        .fold(0, |sum, group| sum.saturating_add(group.clients));
    let scaled = || scenario.groups.iter().filter(|group| !group.fixed);
    if let Some(group) = scaled().find(|group| !(1..=CLIENTS_MAX).contains(&group.clients)) {
        return Err(ScenarioError::value(
            format!("group \"{}\": clients", group.name),
            grouped(group.clients),
            format!("allowed are 1 to {}", grouped(CLIENTS_MAX)),
        ));
    }
    let Some(unit) = scaled().map(|group| group.clients).reduce(gcd) else {
        return Err(ScenarioError::refused(
            "clients",
            format!(
                "scenario \"{}\" has no group that is not fixed",
                scenario.name
            ),
        ));
    };
    // What one unit adds to what the number counts, and what of it is there without any unit.
    let main = scaled().map(|group| group.clients).max().unwrap_or(unit) / unit;
    let all = scaled().map(|group| group.clients / unit).sum();
    let (wanted, of_unit, without) = match to {
        Clients::Times(factor) => {
            let units = (unit as f64 * factor).round();
            if !(factor > 0.0 && units * main as f64 <= CLIENTS_MAX as f64) {
                return Err(ScenarioError::value(
                    "clients",
                    format!("{factor} times as many"),
                    format!(
                        "a factor is more than 0 and leads to at most {} clients",
                        grouped(CLIENTS_MAX)
                    ),
                ));
            }
            ((units as i64).max(1), 1, 0)
        }
        Clients::MainGroup(clients) => (clients, main, 0),
        Clients::Total(clients) => (clients, all, fixed),
    };
    let units = units(wanted, of_unit, without)?;
    for group in scenario.groups.iter_mut().filter(|group| !group.fixed) {
        group.clients = group.clients / unit * units;
    }
    Ok(())
}

/// How many units give a number of clients.
fn units(wanted: i64, of_unit: i64, without: i64) -> Result<i64, ScenarioError> {
    let error = |allowed: String| Err(ScenarioError::value("clients", grouped(wanted), allowed));
    let least = without.saturating_add(of_unit);
    if wanted < least || wanted > CLIENTS_MAX {
        return error(format!(
            "allowed are {} to {}",
            grouped(least),
            grouped(CLIENTS_MAX)
        ));
    }
    let (units, rest) = ((wanted - without) / of_unit, (wanted - without) % of_unit);
    if rest == 0 {
        return Ok(units);
    }
    error(format!(
        "the ratios of the groups allow {} or {}",
        grouped(wanted - rest),
        grouped(wanted - rest + of_unit)
    ))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(scenario: &Scenario) -> Vec<i64> {
        scenario.groups.iter().map(|group| group.clients).collect()
    }

    fn scaled(name: &str, to: Clients) -> Result<Scenario, ScenarioError> {
        let mut scenario = Scenario::builtin(name)?;
        scale(&mut scenario, to)?;
        Ok(scenario)
    }

    #[test]
    fn clients_are_scaled_in_their_ratios() {
        for (name, to, wanted) in [
            (
                "mixed",
                Clients::Total(10_000_000),
                vec![9_000_000, 1_000_000],
            ),
            ("mixed", Clients::MainGroup(9), vec![9, 1]),
            ("mixed", Clients::Times(0.000_001), vec![9, 1]),
            ("mixed", Clients::Times(2.0), vec![32_400, 3_600]),
            ("pairs", Clients::MainGroup(7), vec![7, 7]),
            ("fan-out", Clients::MainGroup(60_000), vec![60_000, 1]),
            ("fan-out", Clients::Total(60_000), vec![59_999, 1]),
            ("chat", Clients::MainGroup(2_000), vec![2_000, 20, 1]),
            ("idle", Clients::Total(10_000_000), vec![10_000_000]),
        ] {
            let scenario = scaled(name, to).unwrap();
            assert_eq!(clients(&scenario), wanted, "{name} {to:?}");
            scenario.plan(1, 1).unwrap();
        }
    }

    #[test]
    fn what_the_ratios_do_not_allow_is_refused_with_what_they_do() {
        for (name, to, wanted) in [
            (
                "mixed",
                Clients::Total(10_000_001),
                "clients is 10,000,001; the ratios of the groups allow 10,000,000 or 10,000,010",
            ),
            (
                "mixed",
                Clients::MainGroup(0),
                "clients is 0; allowed are 9 to 4,294,967,295",
            ),
            ("pairs", Clients::Total(3), "allow 2 or 4"),
            ("fan-out", Clients::Total(1), "allowed are 2 to"),
            (
                "idle",
                Clients::MainGroup(i64::MAX),
                "allowed are 1 to 4,294,967,295",
            ),
            ("idle", Clients::MainGroup(-5), "clients is -5"),
            (
                "idle",
                Clients::Times(1e12),
                "at most 4,294,967,295 clients",
            ),
            ("idle", Clients::Times(0.0), "more than 0"),
            ("idle", Clients::Times(f64::NAN), "more than 0"),
        ] {
            let error = scaled(name, to).unwrap_err().to_string();
            assert!(error.contains(wanted), "{name} {to:?}: {error}");
        }
    }
}
