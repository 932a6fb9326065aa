// SPDX-License-Identifier: GPL-2.0

//! Sets of blocks, against sets of the standard library.

use proptest::{
    collection::vec,
    prelude::*, //
};
use pure::clone::block_set::BlockSet;
use std::collections::BTreeSet;

/// How many blocks there are, and changes: a block, and whether it is added.
fn history() -> impl Strategy<Value = (usize, Vec<(usize, bool)>)> {
    prop_oneof![1usize..200, 4000usize..4200, 1usize..70_000].prop_flat_map(|blocks| {
        let near_the_end = blocks.saturating_sub(100)..blocks;
        let block = prop_oneof![0..blocks, 0..blocks.min(130), near_the_end];
        (Just(blocks), vec((block, any::<bool>()), 0..60))
    })
}

proptest! {
    #[test]
    fn the_next_block_is_the_first_one((blocks, changes) in history(), from in 0usize..70_100) {
        let mut set = BlockSet::new(blocks).unwrap();
        let mut model = BTreeSet::new();
        for (block, add) in changes {
            if add {
                set.insert(block);
                model.insert(block);
            } else {
                set.remove(block);
                model.remove(&block);
            }
            for from in [0, block, block + 1, from] {
                prop_assert_eq!(set.next(from), model.range(from..).next().copied());
            }
        }
    }
}
