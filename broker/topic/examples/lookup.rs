//! What a lookup, an insertion, a removal and a filter in memory cost, with a million filters that
//! have `+` and `#` in them and a depth of 5.
//!
//! ```text
//! cargo run --release -p topic --example lookup [FILTERS]
//! ```
//!
//! Topics are drawn at random from all of them, so that a lookup finds its nodes in memory and not
//! in the processor's cache: what a broker with many topics sees, not the best case. Each workload
//! runs in a process of its own, so that its memory is the process's resident memory before and
//! after. Lookups are repeated; the fastest and the median round are printed. Times are the thread's
//! processor time, so that what else runs on the machine does not count (it still takes its share of
//! the caches), but for the longest insertion, which is what a publisher would have waited. Both come
//! from `/proc`, so this is for Linux.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use topic::FilterTree;

const FILTERS_DEFAULT: u64 = 1_000_000;
const LOOKUPS: u64 = 1_000_000;
const ROUNDS: usize = 5;

/// One way to use a million filters. Each function makes a text of a number.
struct Workload {
    name: &'static str,
    filter: fn(u64) -> String,
    /// A topic for a lookup, of the number of a filter.
    topic: fn(u64) -> String,
    /// Filters that are there beside the numbered ones: they raise the matches of every topic.
    extra: &'static [&'static str],
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "one filter a device, the id in level 2",
        filter: |n| match n % 2 {
            0 => format!("devices/{n}/commands/+/set"),
            _ => format!("devices/{n}/+/commands/#"),
        },
        topic: |n| match n % 2 {
            0 => format!("devices/{n}/commands/heater/set"),
            _ => format!("devices/{n}/room/commands/heater"),
        },
        extra: &[],
    },
    Workload {
        name: "ids of 36 bytes, the id in level 4",
        filter: |n| match n % 2 {
            0 => format!("site/{}/devices/{}/+", n % 1_000, uuid(n)),
            _ => format!("site/+/devices/{}/#", uuid(n)),
        },
        topic: |n| format!("site/{}/devices/{}/state", n % 1_000, uuid(n)),
        extra: &[],
    },
    Workload {
        name: "16 words a level, each filter with its own `+` and `#`",
        filter: |n| words(n, "+", "#"),
        topic: |n| words(n, "x", "y"),
        extra: &[],
    },
    Workload {
        name: "one filter a device and 7 more that match every topic",
        filter: |n| format!("a/b/c/{n}/+"),
        topic: |n| format!("a/b/c/{n}/e"),
        extra: &[
            "#",
            "+/#",
            "a/#",
            "a/+/#",
            "a/b/c/+/e",
            "+/b/c/+/e",
            "+/+/+/+/+",
        ],
    },
    Workload {
        name: "one filter a device and 31 more that match every topic",
        filter: |n| format!("a/b/c/{n}/+"),
        topic: |n| format!("a/b/c/{n}/e"),
        extra: &[
            "#",
            "+/#",
            "+/+/#",
            "+/+/+/#",
            "+/+/+/+/#",
            "+/+/+/+/+/#",
            "a/#",
            "a/+/#",
            "a/+/+/#",
            "a/+/+/+/#",
            "a/b/#",
            "a/b/+/#",
            "a/b/+/+/#",
            "a/b/c/#",
            "a/b/c/+/#",
            "a/b/c/+/e",
            "a/b/c/+/+",
            "a/b/+/+/e",
            "a/b/+/+/+",
            "a/+/c/+/e",
            "a/+/c/+/+",
            "a/+/+/+/e",
            "a/+/+/+/+",
            "+/b/c/+/e",
            "+/b/c/+/+",
            "+/b/+/+/e",
            "+/b/+/+/+",
            "+/+/c/+/e",
            "+/+/c/+/+",
            "+/+/+/+/e",
            "+/+/+/+/+",
        ],
    },
];

/// A text like a random UUID, the same for the same number.
fn uuid(n: u64) -> String {
    let (a, b) = (mix(n), mix(!n));
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

/// Five levels: four words of 16, chosen by `n`, with `plus` in place of one of the first three and
/// `last` as the fifth. Every 65,536th number starts the words again with another wildcard.
fn words(n: u64, plus: &str, last: &str) -> String {
    let word = |level: u64| format!("word{:x}", n >> (4 * level) & 15);
    let place = n >> 16 & 3;
    let tail = n >> 18;
    let level = |l: u64| if l == place { plus.to_owned() } else { word(l) };
    let middle = format!("{}-{tail}", word(3));
    format!("{}/{}/{}/{middle}/{last}", level(0), level(1), level(2))
}

/// A permutation of the 64-bit numbers without visible order (the finaliser of SplitMix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096_usize
}

/// The processor time that this thread has had.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn nanos_each(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}

/// Looks up all topics in several rounds: the matches of a round, and what a lookup took.
fn rounds(tree: &FilterTree<u32>, topics: &[String]) -> (u64, String) {
    let mut matches = 0_u64;
    let mut each: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            matches = 0;
            let start = processor_time();
            for topic in topics {
                tree.for_each_match(topic, |value| {
                    black_box(value);
                    matches += 1;
                });
            }
            nanos_each(processor_time() - start, topics.len() as u64)
        })
        .collect();
    each.sort_by(f64::total_cmp);
    let (fastest, median) = (each[0], each[ROUNDS / 2]);
    (matches, format!("{fastest:.0} ns (median {median:.0})"))
}

fn run(workload: &Workload, filters: u64) {
    let texts: Vec<String> = (0..filters).map(workload.filter).collect();
    let before = resident_bytes();
    let mut tree = FilterTree::<u32>::new();
    let mut longest = Duration::ZERO;
    let start = processor_time();
    for (number, text) in texts.iter().enumerate() {
        let insertion = Instant::now();
        *tree.get_or_insert(text) = number as u32;
        longest = longest.max(insertion.elapsed());
    }
    let insertion = nanos_each(processor_time() - start, filters);
    let bytes = resident_bytes().saturating_sub(before) as f64 / tree.len() as f64;
    for text in workload.extra {
        tree.get_or_insert(text);
    }

    // Made before the clock runs: a broker has the topic's bytes at hand.
    let topics: Vec<String> = (0..LOOKUPS)
        .map(|n| (workload.topic)(mix(n) % filters))
        .collect();
    let (matches, lookup) = rounds(&tree, &topics);
    let misses: Vec<String> = topics
        .iter()
        .map(|topic| format!("{topic}/no/one"))
        .collect();
    let (_, miss) = rounds(&tree, &misses);

    let start = processor_time();
    for text in &texts {
        tree.remove(text);
    }
    let removal = nanos_each(processor_time() - start, filters);

    println!("{}", workload.name);
    println!(
        "  e.g. {:?} for {:?}",
        (workload.filter)(filters / 2),
        (workload.topic)(filters / 2)
    );
    println!(
        "  lookup {lookup} at {:.2} matches; {miss} two levels deeper",
        matches as f64 / LOOKUPS as f64
    );
    println!("  insertion {insertion:.0} ns, longest {longest:?}; removal {removal:.0} ns");
    println!("  {bytes:.0} bytes a filter with a value of 4");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Result<Vec<u64>, _> = arguments.iter().map(|text| text.parse()).collect();
    match numbers.as_deref() {
        Ok([]) => run_all(FILTERS_DEFAULT),
        Ok(&[filters]) if filters > 0 => run_all(filters),
        Ok(&[filters, number]) if filters > 0 && (1..=WORKLOADS.len() as u64).contains(&number) => {
            run(&WORKLOADS[number as usize - 1], filters);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: lookup [FILTERS [WORKLOAD]]");
            eprintln!("FILTERS from 1, WORKLOAD from 1 to {}", WORKLOADS.len());
            ExitCode::from(2)
        }
    }
}

fn run_all(filters: u64) -> ExitCode {
    println!("{filters} filters");
    let program = std::env::current_exe().expect("this program has a path");
    for number in 1..=WORKLOADS.len() {
        let status = Command::new(&program)
            .args([filters.to_string(), number.to_string()])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("workload {number} failed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
