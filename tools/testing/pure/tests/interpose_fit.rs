// SPDX-License-Identifier: GPL-2.0

//! Which top fits which original.

use pure::interpose::fit::{
    check,
    Misfit,
    Traits, //
};

const DISK: Traits = Traits {
    sectors: 2048,
    block_bytes: 512,
    read_only: false,
    write_cache: true,
    stable_writes: false,
    polled: false,
    zoned: false,
    inline_crypto: false,
    atomic_bytes: 0,
    protection_bytes: 0,
};

#[test]
fn a_device_fits_itself() {
    for original in [
        DISK,
        Traits {
            read_only: true,
            ..DISK
        },
        Traits {
            stable_writes: true,
            polled: true,
            inline_crypto: true,
            atomic_bytes: 65536,
            protection_bytes: 8,
            ..DISK
        },
    ] {
        assert_eq!(check(&original, &original), Ok(()));
    }
}

/// Each misfit alone, and the same difference the other way round, which may be all right.
#[test]
fn each_misfit_is_seen_and_no_other() {
    let other = |change: fn(&mut Traits)| {
        let mut traits = DISK;
        change(&mut traits);
        traits
    };
    for (changed, as_top, as_original) in [
        (
            other(|t| t.sectors = 2047),
            Err(Misfit::Size(2048, 2047)),
            Err(Misfit::Size(2047, 2048)),
        ),
        (
            other(|t| t.block_bytes = 4096),
            Err(Misfit::BlockSize(512, 4096)),
            Ok(()),
        ),
        (other(|t| t.read_only = true), Err(Misfit::ReadOnly), Ok(())),
        (
            other(|t| t.write_cache = false),
            Err(Misfit::WriteCache),
            Ok(()),
        ),
        (
            other(|t| t.stable_writes = true),
            Err(Misfit::StableWrites),
            Ok(()),
        ),
        (other(|t| t.polled = true), Ok(()), Err(Misfit::Polled)),
        (
            other(|t| t.zoned = true),
            Err(Misfit::Zoned),
            Err(Misfit::Zoned),
        ),
        (
            other(|t| t.inline_crypto = true),
            Ok(()),
            Err(Misfit::InlineCrypto),
        ),
        (other(|t| t.atomic_bytes = 512), Ok(()), Ok(())),
        (
            other(|t| t.atomic_bytes = 4096),
            Ok(()),
            Err(Misfit::Atomic(4096, 0)),
        ),
        (
            other(|t| t.protection_bytes = 8),
            Err(Misfit::Protection(0, 8)),
            Err(Misfit::Protection(8, 0)),
        ),
    ] {
        assert_eq!(check(&DISK, &changed), as_top);
        assert_eq!(check(&changed, &DISK), as_original);
    }
}

#[test]
fn both_sides_are_told() {
    let small = Traits { sectors: 8, ..DISK };
    let said = check(&DISK, &small).unwrap_err().to_string();
    assert_eq!(said, "it has 8 sectors, the original has 2048");
}
