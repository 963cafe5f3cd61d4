//! The judge of the instruction counts judges right.

#[path = "../benches/instructions/baseline.rs"]
mod baseline;

use baseline::Baseline;

fn figures(list: &[(&str, u64)]) -> Baseline {
    Baseline {
        rustc: "rustc 1.2.3".to_owned(),
        target: "x86_64-linux".to_owned(),
        instructions: list
            .iter()
            .map(|(name, figure)| ((*name).to_owned(), *figure))
            .collect(),
    }
}

#[test]
fn up_to_five_percent_either_way_is_nothing_to_speak_of() {
    let accepted = figures(&[("connect", 1_000), ("decode", 1_000)]);
    let seen = figures(&[("connect", 1_050), ("decode", 950)]);
    let comparison = accepted.compare(&seen);
    assert_eq!(comparison.verdict("make it so"), Ok(String::new()));
    assert!(comparison.table.contains("+5.0 %"), "{}", comparison.table);
}

#[test]
fn more_than_five_percent_more_is_refused_by_name_and_with_the_way_out() {
    let accepted = figures(&[("connect", 1_000), ("decode", 1_000)]);
    let seen = figures(&[("connect", 1_051), ("decode", 1_000)]);
    let error = accepted.compare(&seen).verdict("make it so").unwrap_err();
    assert!(error.starts_with("connect took more"), "{error}");
    assert!(error.contains("`make it so`"), "{error}");
    assert!(!error.contains("decode"), "{error}");
}

#[test]
fn more_than_five_percent_less_is_worth_keeping() {
    let accepted = figures(&[("connect", 1_000)]);
    let advice = accepted
        .compare(&figures(&[("connect", 949)]))
        .verdict("make it so")
        .unwrap();
    assert!(
        advice.starts_with("connect took over 5 % fewer"),
        "{advice}"
    );
    assert!(advice.contains("`make it so`"), "{advice}");
}

#[test]
fn a_case_without_a_figure_and_a_figure_without_a_case_are_refused() {
    let (with, without) = (figures(&[("a", 1), ("b", 1)]), figures(&[("a", 1)]));
    for (accepted, seen) in [(&with, &without), (&without, &with)] {
        let error = accepted.compare(seen).verdict("make it so").unwrap_err();
        assert!(error.starts_with("b is only in"), "{error}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let path = std::env::temp_dir().join(format!("baseline-{}.json", std::process::id()));
    let path = path.to_str().expect("a directory with a plain name");
    let figures = figures(&[("connect", 1_000)]);
    figures.write(path).unwrap();
    let read = Baseline::read(path);
    std::fs::remove_file(path).unwrap();
    assert_eq!(read, Ok(figures));
    let error = Baseline::read(path).unwrap_err();
    assert!(error.starts_with(path), "{error}");
}
