// SPDX-License-Identifier: GPL-2.0

//! Rates over the last seconds, and in all.

use proptest::prelude::*;
use pure::clone::rate::Rate;

#[test]
fn follows_what_is_done() {
    let mut rate = Rate::default();
    assert_eq!((rate.present(5), rate.mean()), (0, 0));
    assert_eq!(rate.seconds_for(1, 5), None);
    assert_eq!(rate.seconds_for(0, 5), Some(0));
    // 1000 a second for a minute, from some time on.
    for now in (7000..67_000).step_by(100) {
        rate.note(now, 100);
    }
    let close = |rate: u64, to: u64| rate.abs_diff(to) <= to / 20;
    assert!(
        close(rate.present(67_000), 1000),
        "{}",
        rate.present(67_000)
    );
    assert!(close(rate.mean(), 1000), "{}", rate.mean());
    assert!(close(rate.seconds_for(30_000, 67_000).unwrap(), 30));
    // Ten times as fast.
    for now in (67_000..97_000).step_by(100) {
        rate.note(now, 1000);
    }
    assert!(
        close(rate.present(97_000), 10_000),
        "{}",
        rate.present(97_000)
    );
    assert!(close(rate.mean(), 4000), "{}", rate.mean());
    assert_eq!(rate.total(), 360_000);
    // And then nothing.
    assert_eq!(rate.present(120_000), 0);
    assert_eq!(rate.seconds_for(1, 120_000), None);
}

proptest! {
    #[test]
    fn any_numbers(notes in prop::collection::vec(any::<(u64, u64)>(), 0..50), count: u64) {
        let mut rate = Rate::default();
        for (now, done) in notes {
            rate.note(now, done);
            rate.present(now);
            rate.seconds_for(count, now);
            rate.mean();
        }
    }
}
