// SPDX-License-Identifier: GPL-2.0

//! The little that the pure files need of their surroundings: memory, words that one thread may
//! read while another writes, a value that goes while others look at it, and the checksum. In the
//! module it is the kernel's, in a test on the host the standard library's.

#[cfg(MODULE)]
mod kernel_side {
    use dm::atomic_words::AtomicWords;
    use kernel::{
        alloc::KVVec,
        prelude::*,
        revocable::Revocable, //
    };

    /// Memory that is allocated once, virtually contiguous.
    pub type Array<T> = KVVec<T>;

    /// There was not enough memory.
    pub type NoMemory = kernel::alloc::AllocError;

    /// An array of `len` elements, each `element`.
    pub fn array<T: Clone>(len: usize, element: T) -> Result<Array<T>, NoMemory> {
        KVVec::from_elem(element, len, GFP_KERNEL)
    }

    /// An empty array with room for `len` elements.
    pub fn with_room<T>(len: usize) -> Result<Array<T>, NoMemory> {
        KVVec::with_capacity(len, GFP_KERNEL)
    }

    /// Adds an element. Allocates only when there is no room.
    pub fn push<T>(array: &mut Array<T>, element: T) -> Result<(), NoMemory> {
        array.push(element, GFP_KERNEL)
    }

    /// Words of 64 bits that are read without a lock.
    pub struct Words(AtomicWords);

    impl Words {
        /// `len` words with no bit set.
        pub fn new(len: usize) -> Result<Self, NoMemory> {
            Ok(Words(AtomicWords::zeroed(len)?))
        }

        /// A word, 0 past the last; what was written before it was stored is seen.
        pub fn load(&self, index: usize) -> u64 {
            self.0.load_acquire(index)
        }

        /// Replaces a word. Writers exclude each other by other means.
        pub fn store(&self, index: usize, bits: u64) {
            self.0.store_release(index, bits);
        }

        /// Writes the words from `first` on to `bytes`, little-endian, as many as fit.
        pub fn copy(&self, first: usize, bytes: &mut [u8]) {
            self.0.copy_le(first, bytes);
        }
    }

    /// A value that is freed while others may look at it.
    pub struct Retirable<T>(Pin<KBox<Revocable<T>>>);

    impl<T> Retirable<T> {
        /// Keeps `value`.
        pub fn new(value: T) -> Result<Self, NoMemory> {
            let boxed = KBox::pin_init(Revocable::new(value), GFP_KERNEL);
            Ok(Retirable(boxed.map_err(|_| kernel::alloc::AllocError)?))
        }

        /// Looks at the value, unless it has been freed. Any context; `look` must not sleep.
        pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
            self.0.try_access_with(look)
        }

        /// Frees the value when nobody looks at it any more. Sleeps.
        pub fn retire(&self) {
            let _ = self.0.revoke();
        }
    }

    /// The crc32c of some bytes, from a seed of all ones and not inverted at the end.
    pub fn crc32c(bytes: &[u8]) -> u32 {
        dm::persistent_data::checksum(bytes, 0)
    }
}
#[cfg(MODULE)]
pub use kernel_side::*;

#[cfg(not(MODULE))]
mod host_side {
    use std::sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        RwLock, //
    };

    /// Memory that is allocated once, virtually contiguous.
    pub type Array<T> = Vec<T>;

    /// There was not enough memory.
    pub type NoMemory = std::collections::TryReserveError;

    /// An array of `len` elements, each `element`.
    pub fn array<T: Clone>(len: usize, element: T) -> Result<Array<T>, NoMemory> {
        let mut array = with_room(len)?;
        array.resize(len, element);
        Ok(array)
    }

    /// An empty array with room for `len` elements.
    pub fn with_room<T>(len: usize) -> Result<Array<T>, NoMemory> {
        let mut array = Vec::new();
        array.try_reserve_exact(len)?;
        Ok(array)
    }

    /// Adds an element. Allocates only when there is no room.
    pub fn push<T>(array: &mut Array<T>, element: T) -> Result<(), NoMemory> {
        array.try_reserve(1)?;
        array.push(element);
        Ok(())
    }

    /// Words of 64 bits that are read without a lock.
    pub struct Words(Vec<AtomicU64>);

    impl Words {
        /// `len` words with no bit set.
        pub fn new(len: usize) -> Result<Self, NoMemory> {
            let mut words = with_room(len)?;
            words.resize_with(len, AtomicU64::default);
            Ok(Words(words))
        }

        /// A word, 0 past the last; what was written before it was stored is seen.
        pub fn load(&self, index: usize) -> u64 {
            self.0
                .get(index)
                .map_or(0, |word| word.load(Ordering::Acquire))
        }

        /// Replaces a word. Writers exclude each other by other means.
        pub fn store(&self, index: usize, bits: u64) {
            if let Some(word) = self.0.get(index) {
                word.store(bits, Ordering::Release);
            }
        }

        /// Writes the words from `first` on to `bytes`, little-endian, as many as fit.
        pub fn copy(&self, first: usize, bytes: &mut [u8]) {
            for (index, bytes) in (first..self.0.len()).zip(bytes.chunks_exact_mut(8)) {
                bytes.copy_from_slice(&self.load(index).to_le_bytes());
            }
        }
    }

    /// A value that is freed while others may look at it.
    pub struct Retirable<T>(RwLock<Option<T>>);

    impl<T> Retirable<T> {
        /// Keeps `value`.
        pub fn new(value: T) -> Result<Self, NoMemory> {
            Ok(Retirable(RwLock::new(Some(value))))
        }

        /// Looks at the value, unless it has been freed.
        pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
            self.0.read().unwrap().as_ref().map(look)
        }

        /// Frees the value when nobody looks at it any more.
        pub fn retire(&self) {
            *self.0.write().unwrap() = None;
        }
    }

    /// The crc32c of some bytes, from a seed of all ones and not inverted at the end.
    pub fn crc32c(bytes: &[u8]) -> u32 {
        !crc32c::crc32c(bytes)
    }
}
#[cfg(not(MODULE))]
pub use host_side::*;
