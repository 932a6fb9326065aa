// SPDX-License-Identifier: GPL-2.0

//! How old what is dirty is.

use pure::lc::age::Age;
use rand::{
    rngs::StdRng,
    Rng,
    SeedableRng, //
};

#[test]
fn what_is_old_is_known_when_it_is() {
    let mut age = Age::default();
    assert_eq!(age.look(1000, 50, 60, 1600), None);
    assert_eq!(age.look(1100, 50, 70, 1600), None);
    assert_eq!(age.look(2500, 50, 70, 1600), None);
    assert_eq!(age.look(2600, 50, 90, 1600), Some(60));
    // It is said once.
    assert_eq!(age.look(2601, 50, 90, 1600), None);
    assert_eq!(age.look(2700, 50, 90, 1600), Some(70));
    assert_eq!(age.look(4200, 90, 95, 1600), None);
    // A shorter time holds for what there is.
    assert_eq!(age.look(4300, 90, 95, 100), Some(95));
    assert_eq!(age.look(4400, 95, 95, 100), None);
    assert_eq!(age.look(9400, 95, 95, 100), None);
}

#[test]
fn looks_are_not_too_far_apart() {
    assert_eq!(Age::step(1), 1);
    assert_eq!(Age::step(15), 1);
    assert_eq!(Age::step(15_000), 1000);
}

/// A log that grows and is written back, and is looked at by a timer that comes late at times: nothing young is said
/// to be old, and nothing gets much older than it may.
#[test]
fn age_is_that_of_the_oldest() {
    let mut random = StdRng::seed_from_u64(1);
    for max_age in [1, 7, 16, 100, 5000] {
        let step = u64::from(Age::step(max_age));
        let mut age = Age::default();
        // When each sector was written.
        let mut log: Vec<u64> = vec![0];
        let (mut tail, mut drain_to, mut now, mut old_times) = (0, 0, 0, 0);
        for _ in 0..5000 {
            let late = if random.random_bool(0.1) {
                random.random_range(0..=step)
            } else {
                0
            };
            let next = now + step + late;
            for _ in 0..random.random_range(0..3) {
                log.push(random.random_range(now..=next));
            }
            log.sort();
            now = next;
            if let Some(old) = age.look(now, tail, log.len() as u64, max_age) {
                assert!(old > tail);
                assert!(log[old as usize - 1] + u64::from(max_age) <= now);
                drain_to = old;
                old_times += 1;
            }
            if random.random_bool(0.3) {
                tail = drain_to.max(tail);
            }
            let kept = log.get(drain_to as usize).copied().unwrap_or(now);
            assert!(
                now - kept < u64::from(max_age) + 4 * step,
                "{now} {kept} {max_age}"
            );
        }
        assert!(old_times > 100, "{old_times}");
    }
}
