// SPDX-License-Identifier: GPL-2.0

//! How hard the background copies, on simulated devices, beside simulated users.

use proptest::prelude::*;
use pure::clone::pace::{
    Advice,
    Pace,
    Seen, //
};
use std::{
    cmp::Reverse,
    collections::BinaryHeap, //
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Copies at a time while nobody else is there.
const MOST: usize = 4;

/// A device.
#[derive(Clone, Copy, Debug)]
struct Device {
    /// It does one request after the other.
    serial: bool,
    /// What each takes, in nanoseconds.
    request: u64,
    /// And for each sector of it.
    sector: u64,
    /// The most sectors of a request.
    longest: u64,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A user's I/O ends, of which is said when it began and what it met.
    User { began: u64, started: u64, met: bool },
    /// A piece ends.
    Piece { began: u64, sectors: u64 },
    /// The timer.
    Timer,
}

/// What came of it.
#[derive(Default, Debug)]
struct Outcome {
    /// Sectors copied.
    copied: u64,
    /// For how long copies were under way.
    copying: u64,
    /// What each I/O of the users took, in the second half of the time.
    latencies: Vec<u64>,
}

impl Outcome {
    fn p99(&mut self) -> u64 {
        self.latencies.sort_unstable();
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

/// Copies for some time, beside so many users' I/Os at a time of 4 KiB each.
fn run(device: Device, users: usize, hydrate: bool, share: u32, time: u64) -> Outcome {
    let mut pace = Pace::new(MOST);
    pace.set_share(share);
    let mut events = BinaryHeap::new();
    let mut free_at = 0;
    let mut send = |now: u64, sectors: u64| {
        let takes = device.request * sectors.div_ceil(device.longest) + device.sector * sectors;
        if !device.serial {
            return now + takes;
        }
        free_at = now.max(free_at) + takes;
        free_at
    };
    let (mut seen, mut under_way, mut started) = (Seen::default(), 0usize, 0u64);
    let (mut copying_since, mut timer) = (0, u64::MAX);
    let mut outcome = Outcome::default();
    for user in 0..users as u64 {
        // They do not begin all at once.
        events.push(Reverse((
            send(user, 8),
            Event::User {
                began: user,
                started: 0,
                met: false,
            },
        )));
    }
    if hydrate {
        events.push(Reverse((0, Event::Timer)));
    }
    while let Some(Reverse((now, event))) = events.pop() {
        if now > time {
            break;
        }
        match event {
            Event::User {
                began,
                started: before,
                met,
            } => {
                let took = now - began;
                if now > time / 2 {
                    outcome.latencies.push(took);
                }
                if met || before != started {
                    seen.beside += 1;
                    seen.slow += u64::from(pace.patience() != 0 && took > pace.patience());
                } else {
                    seen.alone += 1;
                    seen.alone_time += took;
                }
                seen.last = now.max(1);
                let next = Event::User {
                    began: now,
                    started,
                    met: under_way > 0,
                };
                events.push(Reverse((send(now, 8), next)));
                continue;
            }
            Event::Piece { began, sectors } => {
                under_way -= 1;
                if under_way == 0 {
                    outcome.copying += now - copying_since;
                }
                outcome.copied += sectors;
                pace.copied(sectors, now - began);
            }
            Event::Timer if now != timer && timer != u64::MAX => continue,
            Event::Timer => timer = u64::MAX,
        }
        loop {
            let last = seen.last;
            let asked = std::mem::replace(
                &mut seen,
                Seen {
                    last,
                    ..Seen::default()
                },
            );
            match pace.advise(now, asked, under_way) {
                Advice::Copy { copies } if under_way < copies => {
                    if under_way == 0 {
                        copying_since = now;
                    }
                    under_way += 1;
                    started += 1;
                    let sectors = u64::from(pace.piece());
                    let piece = Event::Piece {
                        began: now,
                        sectors,
                    };
                    events.push(Reverse((send(now, sectors), piece)));
                }
                Advice::Copy { .. } => break,
                Advice::Rest(rest) => {
                    // A jiffy later, at most.
                    timer = now + rest + 4 * MS;
                    events.push(Reverse((timer, Event::Timer)));
                    break;
                }
            }
        }
    }
    if under_way > 0 {
        outcome.copying += time - copying_since;
    }
    outcome
}

const PARALLEL: Device = Device {
    serial: false,
    request: 4 * MS,
    sector: 0,
    longest: u64::MAX,
};
const SERIAL: Device = Device {
    serial: true,
    request: 4 * MS,
    sector: 0,
    longest: u64::MAX,
};
/// 100 MB/s, with an access time of a tenth of a millisecond.
const BY_BYTES: Device = Device {
    serial: true,
    request: MS / 10,
    sector: 5000,
    longest: u64::MAX,
};

/// A disk of 4 ms that takes 128 KiB at a time.
const SHORT_REQUESTS: Device = Device {
    serial: true,
    request: 4 * MS,
    sector: 0,
    longest: 256,
};

#[test]
fn keeps_its_speed_where_the_device_allows() {
    let idle = run(PARALLEL, 0, true, 50, 20 * SECOND).copied;
    for users in [1, 4, 16] {
        let mut beside = run(PARALLEL, users, true, 50, 20 * SECOND);
        assert!(
            beside.copied * 2 >= idle,
            "{users}: {} of {idle}",
            beside.copied
        );
        assert!(beside.p99() <= 8 * MS);
    }
}

#[test]
fn users_wait_at_most_twice_as_long_where_that_is_possible() {
    // The second one keeps users waiting longer than what makes them seem gone, at first.
    for device in [SERIAL, SHORT_REQUESTS] {
        let idle = run(device, 0, true, 50, 40 * SECOND).copied;
        for users in [1, 4, 16] {
            let alone = run(device, users, false, 50, 40 * SECOND).p99();
            let mut beside = run(device, users, true, 50, 40 * SECOND);
            let p99 = beside.p99();
            assert!(p99 * 100 <= alone * 205, "{users}: {p99} after {alone}");
            // Fair: as one of those who use it, or better.
            let fair = idle / (users as u64 + 1);
            assert!(
                beside.copied * 10 >= fair * 8,
                "{users}: {} of {idle}",
                beside.copied
            );
        }
    }
}

#[test]
fn keeps_its_share_whatever_that_does_to_users() {
    for share in [5, 20, 50, 80, 100] {
        for device in [SERIAL, BY_BYTES] {
            for users in [1, 4, 16] {
                let time = 20 * SECOND;
                let outcome = run(device, users, true, share, time);
                let kept = outcome.copying * 100 / time;
                // Less what measurements and timers take.
                assert!(
                    kept + 8 >= share.into(),
                    "{device:?} {users} {share}: {kept}"
                );
            }
        }
    }
}

#[test]
fn shorter_pieces_where_they_help() {
    let alone = run(BY_BYTES, 16, false, 10, 60 * SECOND).p99();
    let mut beside = run(BY_BYTES, 16, true, 10, 60 * SECOND);
    // A whole MiB would make them wait for 10 ms.
    assert!(beside.p99() <= alone * 3, "{} after {alone}", beside.p99());
    assert!(beside.copied > 0);
}

#[test]
fn users_that_are_gone_are_forgotten() {
    let mut pace = Pace::new(MOST);
    let there = Seen {
        alone: 1,
        alone_time: MS,
        last: 1,
        ..Seen::default()
    };
    assert!(matches!(pace.advise(2, there, 0), Advice::Rest(_)));
    assert!(pace.is_busy());
    let gone = Seen {
        last: 1,
        ..Seen::default()
    };
    assert_eq!(pace.advise(SECOND, gone, 0), Advice::Copy { copies: MOST });
    assert_eq!(pace.piece(), 2048);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any device, any users: there is progress, and nothing overflows.
    #[test]
    fn there_is_always_progress(
        serial: bool,
        request in 1..2 * SECOND,
        sector in 0..100_000u64,
        users in 0..40usize,
        share in 1..101u32,
    ) {
        let device = Device { serial, request: request.max(10_000), sector, longest: u64::MAX };
        let piece = device.request + sector * 2048;
        let time = (piece * 600).min(600 * SECOND).max(piece * 40 * (users as u64 + 2));
        let outcome = run(device, users, true, share, time);
        prop_assert!(outcome.copied > 0);
    }

    /// Any numbers.
    #[test]
    fn any_numbers(steps in prop::collection::vec(any::<(u64, u64, u64, u64, u64, u8)>(), 0..100)) {
        let mut pace = Pace::new(MOST);
        for (now, a, b, c, d, way) in steps {
            pace.set_share(d as u32);
            let seen = Seen { alone: a, alone_time: b, beside: c, slow: d, last: a ^ b };
            pace.advise(now, seen, (way % 5).into());
            pace.copied(b, c);
            prop_assert!(pace.piece().is_power_of_two() && pace.piece() <= 2048);
        }
    }
}
