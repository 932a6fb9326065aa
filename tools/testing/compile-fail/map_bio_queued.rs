// SPDX-License-Identifier: GPL-2.0

//! A bio in `map` cannot wait in a list; it has to be taken first.
//!
//! error[E0277]: the trait bound `dm::map::MapBio<'_, Plain>: dm::bio_list::Owned` is not satisfied

include!("common/frame.rs");

fn queue(_list: &mut BioList<MapBio<'_, Plain>>) {}
