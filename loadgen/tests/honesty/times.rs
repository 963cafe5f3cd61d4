//! Times: what the proxy delays must be in the histograms. Only lower bounds: a busy machine adds to all times.

use std::time::Duration;

use loadgen::histogram::Histo;
use loadgen::runner::WAITING_MAX;

use crate::proxy::Act;
use crate::run::{Setup, answer, delivery, each};

const LATE: Duration = Duration::from_millis(300);

fn at_least(histo: &Histo, micros: u64) -> u64 {
    let long = histo.recorded().filter(|(value, _)| *value >= micros);
    long.map(|(_, count)| count).sum()
}

/// 5% of 400 messages are 300 ms late. Each lane's next message is due 400 ms later, so that nothing is overtaken.
#[test]
fn late_deliveries_and_answers_are_in_the_quantiles() {
    each([false, true], |answers| {
        let setup = Setup {
            publishers: 80,
            subscribers: 80,
            topics: 80,
            per_second: 200,
            seconds: 2.0,
            drain_max_s: 10.0,
            ..Setup::default()
        };
        let (report, _) = setup.run(move |seen| {
            let stamp = match answers {
                true => answer(seen).map(|(stamp, _)| stamp),
                false => delivery(seen),
            };
            match stamp {
                Some(stamp) if stamp.lane % 20 == 11 => Act::Late(LATE),
                _ => Act::Pass,
            }
        });
        assert_eq!(report.audiences[0].missing, 0);
        assert_eq!(report.streams[0].counts.unanswered, 0);
        let (slow, quick) = match answers {
            true => (
                &report.streams[0].counts.latency,
                &report.audiences[0].latency,
            ),
            false => (
                &report.audiences[0].latency,
                &report.streams[0].counts.latency,
            ),
        };
        assert_eq!((slow.count(), quick.count()), (400, 400));
        assert!(at_least(slow, 300_000) >= 20);
        assert!(
            slow.quantile_ms(0.97) >= 300.0,
            "{}",
            slow.quantile_ms(0.97)
        );
        assert!(slow.quantile_ms(0.5) * 2.0 < slow.quantile_ms(0.97));
        assert!(quick.quantile_ms(0.97) < slow.quantile_ms(0.97));
        // The seconds say the same: a second's longest.
        let seconds = report.seconds.iter().map(|second| match answers {
            true => second.ack_us[2],
            false => second.delivery_us[2],
        });
        assert!(seconds.max().unwrap() >= 300_000);
    });
}

/// 1,000 messages in a second and one stall of 400 ms: 400 of them are due in it, and wait from when they were due, in
/// the tool or in the broker. A tool that waited with its schedule as well would count no more than its window.
#[test]
fn a_stall_is_waited_for_by_all_that_was_due_in_it() {
    for window in [4, 1_000] {
        let setup = Setup {
            publishers: 2,
            subscribers: 2,
            topics: 2,
            per_second: 1_000,
            seconds: 1.0,
            window,
            drain_max_s: 10.0,
            ..Setup::default()
        };
        let mut stalled = false;
        let (report, proxy) = setup.run(move |seen| match delivery(seen) {
            Some(stamp) if stamp.number == 150 && !stalled => {
                stalled = true;
                Act::Stall(Duration::from_millis(400))
            }
            _ => Act::Pass,
        });
        assert_eq!(report.failures, [""; 0]);
        for histo in [
            &report.audiences[0].latency,
            &report.streams[0].counts.latency,
        ] {
            assert_eq!(histo.count(), 1_000);
            // Those due in its first half wait for 200 ms or more. The stall begins some ms after its message was due.
            let half = at_least(histo, 200_000);
            assert!(half >= 180, "{half} of the 200 in the first half");
            assert!(at_least(histo, 100_000) >= half.max(270));
            assert!(
                histo.quantile_ms(0.99) >= 350.0,
                "{}",
                histo.quantile_ms(0.99)
            );
        }
        // What the proxy measured at its own door, no message waited less for the tool.
        let waits = &proxy.book().waits_us;
        let there = waits.iter().filter(|wait| **wait >= 200_000).count() as u64;
        let here = at_least(&report.audiences[0].latency, 199_800);
        assert!(here >= there, "{here} of {there}");
        // And the tool did what was due when it was due: that it was late is no excuse for a stall.
        assert_eq!(report.streams[0].counts.late.count(), 1_000);
        assert!(setup.messages() < WAITING_MAX);
    }
}
