// SPDX-License-Identifier: GPL-2.0

//! A ledger of durable writes, for tests that cut the power: what it has must be there afterwards.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{anyhow, bail, ensure, Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::device::{Buffer, Device};
use crate::exercise::fill;
use crate::stamp::{describe, Stamp, SECTOR};

/// Sectors in a write of the ledger.
const WRITE: u64 = 8;

/// Writes at random places until killed. Each line, `SECTOR COUNT TAG`, is a write that was flushed
/// before the line was written. Tags grow from `after` on.
pub fn keep(device: &Device, seed: u64, threads: u64, after: u64) -> Result<()> {
    let tags = AtomicU64::new(after + 1);
    let places = device.sectors() / WRITE;
    ensure!(
        places >= threads,
        "the area is too small for {threads} threads"
    );
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|number| {
                let own = places * number / threads..places * (number + 1) / threads;
                let random = StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(number));
                let tags = &tags;
                scope.spawn(move || write(device, random, own, tags))
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

fn write(device: &Device, mut random: StdRng, own: Range<u64>, tags: &AtomicU64) -> Result<()> {
    let mut buffer = Buffer::new();
    loop {
        let first = random.random_range(own.clone()) * WRITE;
        let tag = tags.fetch_add(1, Ordering::Relaxed);
        let bytes = buffer.part(&(first..first + WRITE));
        fill(bytes, first, tag);
        device.write(first, bytes)?;
        device.flush()?;
        let mut ledger = io::stdout().lock();
        writeln!(ledger, "{first} {WRITE} {tag}")?;
        ledger.flush()?;
    }
}

/// The durable content after the last line of ledgers: the tag that each sector must have at least.
///
/// What comes after the last line end was cut off with the power.
pub fn read(ledger: &str, durable: &mut HashMap<u64, u64>) -> Result<()> {
    let complete = ledger.rfind('\n').map_or("", |end| &ledger[..end]);
    for line in complete.lines() {
        let numbers: Vec<u64> = line
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("not a line of a ledger: {line}"))?;
        let [first, count, tag] = numbers[..] else {
            bail!("not a line of a ledger: {line}")
        };
        for sector in first..first + count {
            let newest = durable.entry(sector).or_insert(tag);
            *newest = tag.max(*newest);
        }
    }
    Ok(())
}

/// Compares a device with a ledger: each sector has the ledger's tag or a newer one, and where the
/// ledger has nothing, the source's or a newer one. Returns how many sectors the ledger has.
pub fn check(device: &Device, durable: &HashMap<u64, u64>, source: u64) -> Result<usize> {
    let mut buffer = Buffer::new();
    for range in device.pieces() {
        let bytes = buffer.part(&range);
        device.read(range.start, bytes)?;
        for (sector, got) in (range.start..).zip(bytes.chunks_exact(SECTOR)) {
            let least = durable.get(&sector).copied().unwrap_or(source);
            let right =
                Stamp::read(got).is_some_and(|stamp| stamp.sector == sector && stamp.tag >= least);
            ensure!(
                right,
                "sector {sector}: expected tag {least} or newer; got {}",
                describe(got)
            );
        }
    }
    Ok(durable.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_line_counts_and_a_cut_one_does_not() {
        let mut durable = HashMap::new();
        read("8 8 5\n8 8 9\n16 2 7\n8 8 1", &mut durable).unwrap();
        assert_eq!(durable.len(), 10);
        assert_eq!(durable[&8], 9);
        assert_eq!(durable[&17], 7);
    }

    #[test]
    fn says_what_is_no_ledger() {
        let error = read("8 8\n", &mut HashMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "not a line of a ledger: 8 8");
    }

    #[test]
    fn a_lost_write_is_found() {
        let path = std::env::temp_dir().join(format!("iomodel-ledger-{}", std::process::id()));
        let mut content = vec![0; 64 * SECTOR];
        fill(&mut content, 0, 1);
        fill(&mut content[8 * SECTOR..16 * SECTOR], 8, 5);
        std::fs::write(&path, &content).unwrap();
        let device = Device::open(&path, 0, None, false).unwrap();

        let mut durable = HashMap::new();
        read("8 8 4\n", &mut durable).unwrap();
        assert_eq!(check(&device, &durable, 1).unwrap(), 8);
        read("32 8 6\n", &mut durable).unwrap();
        let error = check(&device, &durable, 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "sector 32: expected tag 6 or newer; got sector 32 of tag 1"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
