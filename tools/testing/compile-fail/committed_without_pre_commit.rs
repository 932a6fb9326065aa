// SPDX-License-Identifier: GPL-2.0

//! The superblock is written when all that it refers to is durable, not before.
//!
//! error[E0599]: no method named `commit` found

include!("common/frame.rs");

use dm::persistent_data::{
    TransactionManager,
    Validator, //
};

fn at_once<V: Validator>(tm: &mut TransactionManager) -> Result {
    tm.commit::<V>(|_superblock| {})
}
