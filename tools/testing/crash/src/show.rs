// SPDX-License-Identifier: GPL-2.0

//! Prints what of a record matters to one sector: what was done, every flush, every superblock, and each write to
//! the sector on the target and on the disk of data.

use crate::log::{Disk, Event, Log, Request};

pub fn show(log: &Log, sector: u64) {
    let mut shown = std::collections::HashSet::new();
    for (number, event) in log.events.iter().enumerate() {
        match event {
            Event::Begin { id, disk, request } => {
                let words = match request {
                    Request::Flush => "flush".to_owned(),
                    Request::Write { first, .. } if *disk == Disk::Own => match first {
                        0 => "superblock".to_owned(),
                        _ => continue,
                    },
                    Request::Write {
                        first,
                        contents,
                        fua,
                    } => {
                        let at = sector
                            .checked_sub(*first)
                            .and_then(|at| usize::try_from(at).ok());
                        let Some(content) = at.and_then(|at| contents.iter().nth(at)) else {
                            continue;
                        };
                        let fua = if *fua { " FUA" } else { "" };
                        format!(
                            "write{fua} {content}, {} sectors from {first}",
                            contents.len()
                        )
                    }
                };
                shown.insert(*id);
                println!("{number}: {disk:?} {id}: {words}");
            }
            Event::End { id } if shown.contains(id) => println!("{number}: end of {id}"),
            Event::Note(words) => println!("{number}: {words}"),
            _ => {}
        }
    }
}
