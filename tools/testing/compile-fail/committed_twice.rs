// SPDX-License-Identifier: GPL-2.0

//! A transaction is committed once.
//!
//! error[E0382]: use of moved value: `transaction`

include!("common/frame.rs");

use dm::persistent_data::{
    PreCommitted,
    Validator, //
};

fn twice<V: Validator>(transaction: PreCommitted<'_>) -> Result {
    transaction.commit::<V>(|_superblock| {})?;
    transaction.commit::<V>(|_superblock| {})
}
