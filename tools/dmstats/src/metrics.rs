// SPDX-License-Identifier: GPL-2.0

//! What counters mean over an interval.

use crate::Counters;

/// What a disk did in an interval. Times are nanoseconds, sizes sectors; a mean of nothing is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Metrics {
    pub reads_merged_per_sec: f64,
    pub writes_merged_per_sec: f64,
    pub reads_per_sec: f64,
    pub writes_per_sec: f64,
    pub read_sectors_per_sec: f64,
    pub write_sectors_per_sec: f64,
    pub average_size: f64,
    pub queue_size: f64,
    pub average_wait: f64,
    pub read_wait: f64,
    pub write_wait: f64,
    /// Requests in a second.
    pub throughput: f64,
    /// The time that the disk was busy, for each request.
    pub service_time: f64,
    /// The part of the time in which it was busy, 0 to 1.
    pub utilization: f64,
}

fn ratio(value: f64, of: f64) -> f64 {
    if of > 0.0 {
        value / of
    } else {
        0.0
    }
}

impl Metrics {
    /// The metrics of what was counted in an interval of so many nanoseconds.
    pub fn new(counters: &Counters, interval_ns: u64) -> Self {
        let interval = interval_ns as f64;
        let per_sec = |count: u64| ratio(count as f64 * 1e9, interval);
        let requests = counters.reads.saturating_add(counters.writes);
        let sectors = counters.read_sectors.saturating_add(counters.write_sectors);
        let utilization = ratio(counters.io_ticks as f64, interval).min(1.0);
        let throughput = per_sec(requests);
        Metrics {
            reads_merged_per_sec: per_sec(counters.reads_merged),
            writes_merged_per_sec: per_sec(counters.writes_merged),
            reads_per_sec: per_sec(counters.reads),
            writes_per_sec: per_sec(counters.writes),
            read_sectors_per_sec: per_sec(counters.read_sectors),
            write_sectors_per_sec: per_sec(counters.write_sectors),
            average_size: ratio(sectors as f64, requests as f64),
            queue_size: ratio(counters.queue_ticks as f64, interval),
            average_wait: ratio(
                counters.read_time.saturating_add(counters.write_time) as f64,
                requests as f64,
            ),
            read_wait: ratio(counters.read_time as f64, counters.reads as f64),
            write_wait: ratio(counters.write_time as f64, counters.writes as f64),
            throughput,
            service_time: ratio(utilization * 1e9, throughput),
            utilization,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_of_work_is_measured() {
        let counters = Counters::from_row([
            10,
            9,
            1280,
            5_000_000,
            30,
            0,
            240,
            60_000_000,
            1,
            500_000_000,
            2_000_000_000,
            1,
            2,
        ]);
        let metrics = Metrics::new(&counters, 1_000_000_000);
        assert_eq!(
            (
                metrics.reads_per_sec,
                metrics.writes_per_sec,
                metrics.throughput
            ),
            (10.0, 30.0, 40.0)
        );
        // The merged requests of a second are not 0 for want of a factor.
        assert_eq!(
            (metrics.reads_merged_per_sec, metrics.writes_merged_per_sec),
            (9.0, 0.0)
        );
        assert_eq!(
            (
                metrics.average_size,
                metrics.queue_size,
                metrics.utilization
            ),
            (38.0, 2.0, 0.5)
        );
        assert_eq!(
            (metrics.average_wait, metrics.read_wait, metrics.write_wait),
            (1_625_000.0, 500_000.0, 2_000_000.0)
        );
        assert_eq!(metrics.service_time, 12_500_000.0);
    }

    #[test]
    fn nothing_in_no_time_is_zero() {
        assert_eq!(Metrics::new(&Counters::default(), 0), Metrics::default());
    }

    proptest! {
        #[test]
        fn no_counters_give_what_is_no_number(row: [u64; 13], interval: u64) {
            let metrics = Metrics::new(&Counters::from_row(row), interval);
            prop_assert!(metrics.utilization <= 1.0);
            for value in [metrics.average_wait, metrics.service_time, metrics.queue_size, metrics.throughput] {
                prop_assert!(value.is_finite() && value >= 0.0);
            }
        }
    }
}
