// SPDX-License-Identifier: GPL-2.0

//! How writes are let in, on a simulated cache before a slow disk.

use proptest::prelude::*;
use pure::lc::throttle::Throttle;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// The simulation looks at everything so often.
const TICK: u64 = 10 * MS;

/// A log, writers that want to write all the time, and a writeback that always has a batch under way.
#[derive(Clone, Copy, Debug)]
struct Cache {
    log: u64,
    /// What each batch frees, and how long it takes.
    batch: u64,
    batch_ns: u64,
    writers: usize,
    /// What each write takes.
    sectors: u32,
}

/// What came of it, in its second half.
#[derive(Debug)]
struct Outcome {
    /// Sectors written in a second.
    rate: u64,
    /// The longest time that a write waited.
    longest: u64,
}

/// A tick every ten milliseconds, in which as many writes come in as may; the first come first.
fn simulate(cache: &Cache, throttle: &mut Throttle) -> Outcome {
    let seconds = 40 * cache.batch_ns / SECOND + 10;
    let ticks = seconds * 100;
    let (mut used, mut written, mut longest) = (0, 0, 0);
    let mut waiting_since = vec![0; cache.writers];
    let mut batch_left = cache.batch_ns;
    let mut turn = 0;
    for tick in 0..ticks {
        let now = tick * TICK;
        let is_late = tick > ticks / 2;
        throttle.tick(cache.log - used, TICK);
        // Each writer can do no more than so many writes in a tick.
        for _ in 0..cache.writers * 100 {
            let room = cache.log - used;
            if room < u64::from(cache.sectors) || throttle.is_closed(room) {
                break;
            }
            throttle.pay(room, cache.sectors);
            used += u64::from(cache.sectors);
            if is_late {
                written += u64::from(cache.sectors);
                longest = longest.max(now - waiting_since[turn]);
            }
            waiting_since[turn] = now;
            turn = (turn + 1) % cache.writers;
        }
        batch_left = batch_left.saturating_sub(TICK);
        if batch_left == 0 {
            let freed = cache.batch.min(used);
            used -= freed;
            throttle.note_batch(freed, cache.batch_ns);
            batch_left = cache.batch_ns;
        }
    }
    Outcome {
        rate: written * 2 / seconds,
        longest,
    }
}

#[test]
fn writers_wait_for_their_turn_and_not_for_a_batch() {
    // 8 MiB in 16 s: a disk of 124 writes in a second. A gibibyte of cache.
    let cache = Cache {
        log: 1 << 21,
        batch: 16 * 1032,
        batch_ns: 16 * SECOND,
        writers: 32,
        sectors: 8,
    };
    let Outcome { rate, longest } = simulate(&cache, &mut Throttle::new(cache.log));
    let disk = cache.batch * SECOND / cache.batch_ns;
    assert!(rate > disk * 9 / 10, "{rate} of {disk} sectors in a second");
    // A turn of all writers takes a quarter of a second at that rate.
    assert!(longest < SECOND, "{} ms", longest / MS);
    // All wait for a batch if nobody slows them down.
    let without = simulate(&cache, &mut Throttle::new(0));
    assert!(without.longest > 10 * SECOND, "{without:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the devices: the backing device is kept busy, and writers come in.
    #[test]
    fn throughput_is_that_of_the_backing_device(
        log in 33_000u64..1 << 24,
        batch_share in 2u64..64,
        batch_ms in 10u64..20_000,
        writers in 1usize..64,
        sectors in 1u32..2048,
    ) {
        let batch = (log / batch_share).clamp(1032, 16 * 1032);
        let cache = Cache { log, batch, batch_ns: batch_ms * MS, writers, sectors };
        let outcome = simulate(&cache, &mut Throttle::new(log));
        // A batch ends with a tick.
        let disk = batch * SECOND / cache.batch_ns.next_multiple_of(TICK);
        // As fast as they can be in this simulation, at most.
        let can = 10_000 * writers as u64 * u64::from(sectors);
        prop_assert!(outcome.rate > disk.min(can) * 8 / 10, "{outcome:?} of {disk}");
    }
}
