// SPDX-License-Identifier: GPL-2.0

//! The little that the pure files need of their surroundings: memory and the checksum. In the
//! module it is the kernel's, in a test on the host the standard library's.

#[cfg(MODULE)]
mod kernel_side {
    use kernel::{
        alloc::KVVec,
        prelude::*, //
    };

    /// Memory that is allocated once, virtually contiguous.
    pub type Array<T> = KVVec<T>;

    /// There was not enough memory.
    pub type NoMemory = kernel::alloc::AllocError;

    pub use dm::zeroed::zeroed;

    /// An empty array with room for `len` elements.
    pub fn with_room<T>(len: usize) -> Result<Array<T>, NoMemory> {
        KVVec::with_capacity(len, GFP_KERNEL)
    }

    /// Adds an element; gives it back if there is no room. Allocates nothing.
    pub fn push<T>(array: &mut Array<T>, element: T) -> Result<(), T> {
        array.push_within_capacity(element).map_err(|error| error.0)
    }

    pub use dm::crc::crc32c;
}
#[cfg(MODULE)]
pub use kernel_side::*;

#[cfg(not(MODULE))]
mod host_side {
    /// Memory that is allocated once, virtually contiguous.
    pub type Array<T> = Vec<T>;

    /// There was not enough memory.
    pub type NoMemory = std::collections::TryReserveError;

    /// An array of `len` zeroes.
    pub fn zeroed<T: Clone + Default>(len: usize) -> Result<Array<T>, NoMemory> {
        let mut array = with_room(len)?;
        array.resize(len, T::default());
        Ok(array)
    }

    /// An empty array with room for `len` elements.
    pub fn with_room<T>(len: usize) -> Result<Array<T>, NoMemory> {
        let mut array = Vec::new();
        array.try_reserve_exact(len)?;
        Ok(array)
    }

    /// Adds an element; gives it back if there is no room. Allocates nothing.
    pub fn push<T>(array: &mut Array<T>, element: T) -> Result<(), T> {
        if array.len() == array.capacity() {
            return Err(element);
        }
        array.push(element);
        Ok(())
    }

    pub use crc32c::crc32c;
}
#[cfg(not(MODULE))]
pub use host_side::*;
