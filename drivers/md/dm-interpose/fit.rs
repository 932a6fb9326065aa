// SPDX-License-Identifier: GPL-2.0

//! Which top fits which original. Pure.
//!
//! Users of an original have looked at its limits, and go on by them when there is a top. So the
//! top has to take everything that the original takes; what it does not, and what users cope with
//! at any time (a discard that is not supported, a bio that has to be split), is no reason.

use core::fmt;

/// What users of a device rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traits {
    /// The size.
    pub sectors: u64,
    /// The unit of I/O, in bytes.
    pub block_bytes: u32,
    /// No writes.
    pub read_only: bool,
    /// What is written is durable only after a flush.
    pub write_cache: bool,
    /// Pages must not change while they are written.
    pub stable_writes: bool,
    /// Bios are polled for, not requests: the driver itself may wait for that.
    pub polled: bool,
    /// Zones that are written in order.
    pub zoned: bool,
    /// The driver encrypts by itself.
    pub inline_crypto: bool,
    /// The longest write that is never torn, in bytes; 0 for none.
    pub atomic_bytes: u32,
    /// Protection information of each block, in bytes; 0 for none.
    pub protection_bytes: u8,
}

/// What of a top does not fit: displays as a sentence with both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// The sizes of original and top, in sectors.
    Size(u64, u64),
    /// The block sizes of original and top, in bytes.
    BlockSize(u32, u32),
    /// The top is read-only.
    ReadOnly,
    /// The original needs flushes and the top would not let them through.
    WriteCache,
    /// The top needs pages that do not change and the original does not.
    StableWrites,
    /// The original's bios are polled for and those of the top are not.
    Polled,
    /// One of the two is zoned.
    Zoned,
    /// The original encrypts and the top does not.
    InlineCrypto,
    /// The longest atomic writes of original and top, in bytes.
    Atomic(u32, u32),
    /// The protection information of original and top, in bytes.
    Protection(u8, u8),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Size(original, top) => {
                write!(f, "it has {top} sectors, the original has {original}")
            }
            Misfit::BlockSize(original, top) => write!(
                f,
                "its logical blocks have {top} bytes, those of the original {original}"
            ),
            Misfit::ReadOnly => f.write_str("it is read-only, the original is not"),
            Misfit::WriteCache => {
                f.write_str("it has no volatile cache and the original does: flushes would be lost")
            }
            Misfit::StableWrites => f.write_str(
                "it needs pages that do not change while they are written, the original does not: its \
                 users change them",
            ),
            Misfit::Polled => {
                f.write_str("it does not support polling, the original does")
            }
            Misfit::Zoned => f.write_str("zoned devices are not supported"),
            Misfit::InlineCrypto => f.write_str("it has no inline encryption, the original does"),
            Misfit::Atomic(original, top) => write!(
                f,
                "its atomic writes have at most {top} bytes, those of the original {original}"
            ),
            Misfit::Protection(original, top) => write!(
                f,
                "its blocks have {top} bytes of protection information, those of the original \
                 {original}"
            ),
        }
    }
}

/// Whether bios for `original` may be led to `top`.
pub fn check(original: &Traits, top: &Traits) -> Result<(), Misfit> {
    let refuse = |condition: bool, misfit| if condition { Err(misfit) } else { Ok(()) };
    refuse(
        top.sectors != original.sectors,
        Misfit::Size(original.sectors, top.sectors),
    )?;
    refuse(
        top.block_bytes > original.block_bytes,
        Misfit::BlockSize(original.block_bytes, top.block_bytes),
    )?;
    refuse(top.read_only && !original.read_only, Misfit::ReadOnly)?;
    refuse(original.write_cache && !top.write_cache, Misfit::WriteCache)?;
    // Whoever has opened the original has asked only then whether it may change them.
    refuse(
        top.stable_writes && !original.stable_writes,
        Misfit::StableWrites,
    )?;
    // The first part of a bio that is split by the original may be in its queue already when the rest is
    // led. It ends when it is polled for, by way of the top.
    refuse(original.polled && !top.polled, Misfit::Polled)?;
    refuse(original.zoned || top.zoned, Misfit::Zoned)?;
    refuse(
        original.inline_crypto && !top.inline_crypto,
        Misfit::InlineCrypto,
    )?;
    // One block is never torn: such a write needs no promise.
    refuse(
        original.atomic_bytes > top.atomic_bytes.max(top.block_bytes),
        Misfit::Atomic(original.atomic_bytes, top.atomic_bytes),
    )?;
    refuse(
        original.protection_bytes != top.protection_bytes,
        Misfit::Protection(original.protection_bytes, top.protection_bytes),
    )
}
