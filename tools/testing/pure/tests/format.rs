// SPDX-License-Identifier: GPL-2.0

//! The superblock, against an image that is put together here, byte by byte.

use proptest::{
    array::uniform32,
    collection::vec,
    prelude::*, //
};
use pure::clone::format::{
    check,
    is_blank,
    seal,
    Superblock,
    SuperblockError,
    BLOCK_SIZE, //
};

type Block = [u8; BLOCK_SIZE];

/// CRC-32C as the kernel computes it: from all ones, not inverted at the end.
fn crc(bytes: &[u8]) -> u32 {
    !crc32c::crc32c(bytes)
}

fn write(block: &mut Block, offset: usize, bytes: &[u8]) {
    block[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Puts the checksum in its place.
fn write_checksum(block: &mut Block) {
    let checksum = crc(&block[4..]) ^ 257_649_492;
    write(block, 0, &checksum.to_le_bytes());
}

/// The block that a superblock is on disk, by the table of offsets.
fn image(superblock: &Superblock) -> Block {
    let mut block = [0; BLOCK_SIZE];
    write(&mut block, 4, &0u32.to_le_bytes()); // flags
    write(&mut block, 8, &0u64.to_le_bytes()); // block number
    write(&mut block, 16, &[0; 16]); // uuid
    write(&mut block, 32, &[0x64, 0x7f, 0xf2, 0x8a, 0, 0, 0, 0]); // magic
    write(&mut block, 40, &[1, 0, 0, 0]); // version
    write(&mut block, 44, &superblock.space_map_root);
    write(&mut block, 172, &superblock.region_sectors.to_le_bytes());
    write(&mut block, 180, &superblock.target_sectors.to_le_bytes());
    write(&mut block, 188, &superblock.bitset_root.to_le_bytes());
    write_checksum(&mut block);
    block
}

/// A superblock in which each field has other bytes.
fn example() -> Superblock {
    let mut space_map_root = [0; 128];
    (1..)
        .zip(&mut space_map_root)
        .for_each(|(number, byte)| *byte = number);
    Superblock {
        space_map_root,
        region_sectors: 0x8182_8384_8586_8788,
        target_sectors: 0x9192_9394_9596_9798,
        bitset_root: 0xa1a2_a3a4_a5a6_a7a8,
    }
}

fn superblock() -> impl Strategy<Value = Superblock> {
    (
        uniform32(any::<[u8; 4]>()),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(
            |(root, region_sectors, target_sectors, bitset_root)| Superblock {
                space_map_root: root.concat().try_into().unwrap(),
                region_sectors,
                target_sectors,
                bitset_root,
            },
        )
}

/// Any bytes, with the fields that are checked first right often.
fn block() -> impl Strategy<Value = Block> {
    (vec(any::<u8>(), BLOCK_SIZE), 0..5).prop_map(|(bytes, right)| {
        let mut block: Block = bytes.try_into().unwrap();
        if right > 0 {
            write(&mut block, 8, &0u64.to_le_bytes());
        }
        if right > 1 {
            write(&mut block, 32, &0x8af2_7f64_u64.to_le_bytes());
        }
        if right > 3 {
            write(&mut block, 40, &1u32.to_le_bytes());
        }
        if right > 2 {
            write_checksum(&mut block);
        }
        block
    })
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc(b"123456789"), !0xe306_9283);
}

#[test]
fn each_field_is_at_its_offset() {
    let mut block = [0; BLOCK_SIZE];
    block[..196].fill(0xff);
    example().encode(&mut block);
    seal(&mut block, 0, crc);
    assert_eq!(block, image(&example()));
}

/// Faults are found in the order of C's checks, and said in its words.
#[test]
fn the_first_fault_is_told() {
    let told = |block: &Block, location| check(block, location, crc).unwrap_err().to_string();

    let mut block = image(&example());
    write(&mut block, 0, &7u32.to_le_bytes());
    write(&mut block, 8, &5u64.to_le_bytes());
    write(&mut block, 32, &6u64.to_le_bytes());
    write(&mut block, 40, &2u32.to_le_bytes());
    assert_eq!(
        told(&block, 0),
        "Superblock check failed: blocknr 5, expected 0"
    );
    assert_eq!(
        told(&block, 3),
        "Superblock check failed: blocknr 5, expected 3"
    );

    write(&mut block, 8, &0u64.to_le_bytes());
    assert_eq!(
        told(&block, 0),
        "Superblock check failed: magic 6, expected 2331148132"
    );

    write(&mut block, 32, &2_331_148_132_u64.to_le_bytes());
    let computed = crc(&block[4..]) ^ 257_649_492;
    let expected = format!("Superblock check failed: checksum {computed}, expected 7");
    assert_eq!(told(&block, 0), expected);

    write_checksum(&mut block);
    let expected = "Clone metadata version 2 found, \
        but only versions between 1 and 1 supported.";
    assert_eq!(told(&block, 0), expected);

    write(&mut block, 40, &1u32.to_le_bytes());
    write_checksum(&mut block);
    assert_eq!(check(&block, 0, crc), Ok(()));
    assert_eq!(Superblock::decode(&block), example());
}

#[test]
fn version_0_is_refused() {
    let mut block = image(&example());
    write(&mut block, 40, &0u32.to_le_bytes());
    write_checksum(&mut block);
    assert_eq!(
        check(&block, 0, crc),
        Err(SuperblockError::Version { found: 0 })
    );
}

#[test]
fn a_superblock_is_valid_only_where_it_was_written() {
    let mut block = image(&example());
    seal(&mut block, 9, crc);
    assert_eq!(check(&block, 9, crc), Ok(()));
    let error = SuperblockError::BlockNumber {
        found: 9,
        expected: 0,
    };
    assert_eq!(check(&block, 0, crc), Err(error));
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let mut block = image(&example());
    for bit in 0..BLOCK_SIZE * 8 {
        let offset = bit / 8;
        block[offset] ^= 1 << (bit % 8);
        let error = check(&block, 0, crc).expect_err(&format!("bit {bit} was flipped"));
        match error {
            SuperblockError::BlockNumber { .. } => assert!((8..16).contains(&offset)),
            SuperblockError::Magic { .. } => assert!((32..40).contains(&offset)),
            SuperblockError::Checksum { .. } => {
                assert!(!(8..16).contains(&offset) && !(32..40).contains(&offset));
            }
            SuperblockError::Version { .. } => panic!("version of a damaged block"),
        }
        block[offset] ^= 1 << (bit % 8);
    }
    assert_eq!(check(&block, 0, crc), Ok(()));
}

#[test]
fn only_zeroes_are_blank() {
    let mut block = [0; BLOCK_SIZE];
    assert!(is_blank(&block));
    for offset in 0..BLOCK_SIZE {
        block[offset] = 0x10;
        assert!(!is_blank(&block), "byte {offset}");
        block[offset] = 0;
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(superblock in superblock()) {
        let mut block = [0; BLOCK_SIZE];
        block[..196].fill(0xff);
        superblock.encode(&mut block);
        seal(&mut block, 0, crc);
        prop_assert_eq!(block, image(&superblock));
        prop_assert_eq!(check(&block, 0, crc), Ok(()));
        prop_assert_eq!(Superblock::decode(&block), superblock);
        prop_assert!(!is_blank(&block));
    }

    /// What is accepted is what would have been written, but for fields without a meaning.
    #[test]
    fn any_bytes_are_refused_or_read(block in block()) {
        prop_assert!(!is_blank(&block));
        let read = Superblock::decode(&block);
        match check(&block, 0, crc) {
            Ok(()) => {
                let mut written = block;
                read.encode(&mut written);
                seal(&mut written, 0, crc);
                for meaningful in [8..16, 32..196] {
                    prop_assert_eq!(&written[meaningful.clone()], &block[meaningful]);
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
