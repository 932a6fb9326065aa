// SPDX-License-Identifier: GPL-2.0

//! Judges the disk of data of a cache by itself, where it promises that it is written back in the order of flushes:
//! after each event, whatever is there must be what was there at some flush, and some of what was written before the
//! next one.
//!
//! A sector that holds a write says that it is that flush or a later one: the last that had ended when the write began.
//! And that it is an earlier one than the first flush that began when the next write of the sector had ended. A flush
//! that all sectors agree on is what is looked for. Writes that overlap in time say nothing of each other.

use std::collections::HashMap;

use anyhow::{anyhow, ensure, Result};

use crate::cache::Cache;
use crate::log::{Content, Disk, Event, Log, Request, ANYTHING, SOURCE};

/// When something began and ended, by the numbers of events.
#[derive(Clone, Copy)]
struct Span {
    begin: usize,
    end: usize,
}

/// The flushes to which a content fits, counted from 1; 0 is the state before all of them.
#[derive(Clone, Copy)]
struct Fit {
    from: usize,
    to: usize,
}

/// Which content of which sector fits to what.
struct Order(HashMap<(u64, Content), Fit>);

impl Order {
    fn of(log: &Log) -> Self {
        let mut spans = HashMap::new();
        for (number, event) in log.events.iter().enumerate() {
            match event {
                Event::Begin {
                    id,
                    disk: Disk::Top,
                    request,
                } => {
                    let (begin, end) = (number, usize::MAX);
                    spans.insert(*id, (Span { begin, end }, request));
                }
                Event::End { id } => {
                    if let Some((span, _)) = spans.get_mut(id) {
                        span.end = number;
                    }
                }
                _ => {}
            }
        }
        let mut flushes = Vec::new();
        let mut sectors: HashMap<u64, Vec<(Content, Span)>> = HashMap::new();
        for (span, request) in spans.into_values() {
            match request {
                Request::Flush => flushes.push(span),
                Request::Write {
                    first, contents, ..
                } => {
                    for (sector, content) in (*first..).zip(contents.iter()) {
                        // Nobody tells the disk of discards.
                        if content != ANYTHING {
                            sectors.entry(sector).or_default().push((content, span));
                        }
                    }
                }
            }
        }
        flushes.sort_by_key(|flush| flush.begin);
        let mut fits = HashMap::new();
        for (sector, mut writes) in sectors {
            let begin = 0;
            writes.push((SOURCE, Span { begin, end: begin }));
            for (content, span) in &writes {
                let before = |flush: &Span| flush.end < span.begin;
                let next = writes.iter().filter(|(_, other)| other.begin > span.end);
                let gone = next.map(|(_, other)| other.end).min();
                let ends =
                    gone.and_then(|gone| flushes.iter().position(|flush| flush.begin > gone));
                let fit = Fit {
                    from: flushes.iter().rposition(before).map_or(0, |last| last + 1),
                    to: ends.unwrap_or(usize::MAX),
                };
                fits.insert((sector, *content), fit);
            }
        }
        Order(fits)
    }

    /// What may be on the disk fits to one flush, however its writes that are not settled come out.
    fn check(&self, data: &Cache) -> Result<()> {
        let (mut lowest, mut highest) = ((0, 0), (usize::MAX, 0));
        for sector in 0..data.sectors() {
            for content in data.possible(sector) {
                let fit = match self.0.get(&(sector, content)) {
                    Some(fit) => *fit,
                    None if content == SOURCE => continue,
                    None => {
                        return Err(anyhow!(
                            "sector {sector} may hold {content}, which nobody wrote"
                        ))
                    }
                };
                lowest = lowest.max((fit.from, sector));
                highest = highest.min((fit.to, sector));
            }
        }
        ensure!(
            lowest.0 <= highest.0,
            "sector {} may be of flush {} or later, and sector {} of {} or earlier",
            lowest.1,
            lowest.0,
            highest.1,
            highest.0
        );
        Ok(())
    }
}

/// Goes through a record; returns how many states of the disk were looked at.
pub fn check(log: &Log) -> Result<u64> {
    let order = Order::of(log);
    let mut data = Cache::new(log.setup.sectors, SOURCE);
    let mut owned = std::collections::HashSet::new();
    let mut states = 0;
    for (number, event) in log.events.iter().enumerate() {
        match event {
            Event::Begin {
                id,
                disk: Disk::Data,
                request,
            } => {
                owned.insert(*id);
                data.begin(*id, request);
            }
            Event::End { id } if owned.remove(id) => data.end(*id),
            _ => continue,
        }
        order
            .check(&data)
            .map_err(|flaw| anyhow!("the disk of data alone, after event {number}: {flaw}"))?;
        states += 1;
    }
    Ok(states)
}
