// SPDX-License-Identifier: GPL-2.0

//! Nothing changes between the two steps of a commit.
//!
//! error[E0499]: cannot borrow `*tm` as mutable more than once at a time

include!("common/frame.rs");

use dm::persistent_data::{
    Bitset,
    TransactionManager,
    Validator, //
};

fn late<V: Validator>(tm: &mut TransactionManager, bits: &mut Bitset) -> Result {
    let transaction = tm.pre_commit()?;
    bits.set(tm, 1)?;
    transaction.commit::<V>(|_superblock| {})
}
