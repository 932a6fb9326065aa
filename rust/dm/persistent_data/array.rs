// SPDX-License-Identifier: GPL-2.0

//! Arrays of numbers in the blocks of a [`TransactionManager`].
//!
//! An array is known by its root, a block number that every change may replace, and its length;
//! both belong into the superblock. [`Array`] keeps the two together in memory. It is used with
//! the transaction manager that it was made with, which therefore is an argument, not a part of
//! it: several arrays share one.

use super::transaction_manager::TransactionManager;
use crate::{
    bindings,
    compat, //
};
use core::{
    marker::PhantomData,
    mem::{
        size_of,
        MaybeUninit, //
    }, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*, //
};

/// A number that arrays hold, little endian on disk.
///
/// # Safety
///
/// Every bit pattern must be valid for the type, and it must have no padding.
pub unsafe trait ArrayValue: Copy {
    /// The number whose bytes in memory are the little-endian ones of `self`, and the reverse.
    fn swap_le(self) -> Self;
}

// SAFETY: An integer.
unsafe impl ArrayValue for u32 {
    fn swap_le(self) -> Self {
        self.to_le()
    }
}

// SAFETY: An integer.
unsafe impl ArrayValue for u64 {
    fn swap_le(self) -> Self {
        self.to_le()
    }
}

/// A persistent array of `T`, as of a transaction.
///
/// When a change fails, so has the transaction, and the value is of no further use: drop it along
/// with the [`TransactionManager`].
pub struct Array<T> {
    root: u64,
    len: u32,
    _values: PhantomData<T>,
}

impl<T: ArrayValue> Array<T> {
    /// Makes an array of length 0. Sleeps.
    pub fn empty(tm: &mut TransactionManager) -> Result<Self> {
        let mut root = 0;
        tm.change(|tm| {
            // SAFETY: The description is initialised, and `root` is a live local.
            with_info::<T>(tm, |info| unsafe {
                bindings::dm_array_empty(info, &mut root)
            })
        })?;
        Ok(Self::open(root, 0))
    }

    /// The array of `len` values at `root`, as of the last commit.
    pub fn open(root: u64, len: u32) -> Self {
        Array {
            root,
            len,
            _values: PhantomData,
        }
    }

    /// The block that the array begins at.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// The number of values.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the array `new_len` values long; new ones are `fill`. Sleeps.
    ///
    /// Fails with `EILSEQ` if the length of the array on disk is not the one it was opened with.
    pub fn resize(&mut self, tm: &mut TransactionManager, new_len: u32, fill: T) -> Result {
        // The C function trusts the lengths, and stops the kernel if the blocks differ.
        self.check_len(tm)?;
        if new_len > 0 && new_len < self.len {
            self.read(tm, new_len - 1)?;
        }

        let fill = fill.swap_le();
        let (root, len) = (self.root, self.len);
        let new_root = &mut self.root;
        tm.change(|tm| {
            // SAFETY: The description is initialised, `fill` is a value of its size, and
            // `new_root` is a live reference.
            with_info::<T>(tm, |info| unsafe {
                bindings::dm_array_resize(
                    info,
                    root,
                    len,
                    new_len,
                    (&raw const fill).cast(),
                    new_root,
                )
            })
        })?;
        self.len = new_len;
        Ok(())
    }

    /// The value at `index`; `EINVAL` beyond the end. Sleeps.
    pub fn get(&self, tm: &TransactionManager, index: u32) -> Result<T> {
        self.check_index(index)?;
        self.read(tm, index)
    }

    /// Writes `value` at `index`; `EINVAL` beyond the end. Sleeps.
    pub fn set(&mut self, tm: &mut TransactionManager, index: u32, value: T) -> Result {
        self.check_index(index)?;
        let value = value.swap_le();
        let root = self.root;
        let new_root = &mut self.root;
        tm.change(|tm| {
            // SAFETY: The description is initialised, `value` is one of its size, and `new_root`
            // is a live reference.
            with_info::<T>(tm, |info| unsafe {
                bindings::dm_array_set_value(info, root, index, (&raw const value).cast(), new_root)
            })
        })
    }

    /// Calls `f` with every index and value, in order, until it fails. Sleeps.
    ///
    /// Reads block after block, and the next ones ahead, which is a lot faster than [`get`]. `f`
    /// runs with a block locked, so it must not read the array itself. Fails, also, if the array
    /// on disk is shorter than it should be or cannot be read.
    ///
    /// [`get`]: Self::get
    pub fn for_each(&self, tm: &TransactionManager, mut f: impl FnMut(u32, T) -> Result) -> Result {
        if self.is_empty() {
            return Ok(());
        }
        let per_block = Self::values_per_block(tm)?;
        let mut result = Ok(());
        tm.read(|tm| {
            with_info::<T>(tm, |info| {
                let walk = |cursor: &mut Cursor<T>| cursor.walk(self.len, per_block, &mut f);
                // SAFETY: The description is initialised, and lives longer than the cursor.
                result = unsafe { Cursor::with(info, self.root, walk) };
                0
            })
        })?;
        result
    }

    fn check_index(&self, index: u32) -> Result {
        if index < self.len {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Checks that the last value is there, and none after it in its block.
    ///
    /// If the last block is full, whatever follows is replaced when the array grows; C leaves a
    /// block behind when it shrinks an array by all values of its last, partial block.
    fn check_len(&self, tm: &TransactionManager) -> Result {
        if let Some(last) = self.len.checked_sub(1) {
            self.read(tm, last)?;
        }
        if self.len.checked_rem(Self::values_per_block(tm)?) == Some(0) {
            return Ok(());
        }
        match self.read(tm, self.len) {
            Err(error) if error.to_errno() == -(bindings::ENODATA as c_int) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(compat::eilseq()),
        }
    }

    /// How many values a block holds behind its header.
    fn values_per_block(tm: &TransactionManager) -> Result<u32> {
        // Checksum, most values, values, size of a value, 4 bytes each; block number, 8 bytes.
        const HEADER: usize = 24;
        let room = tm.block_size().checked_sub(HEADER).ok_or(EINVAL)?;
        u32::try_from(room / size_of::<T>()).map_err(|_| EINVAL)
    }

    /// The value at `index` of the array on disk, which says `ENODATA` beyond its end.
    fn read(&self, tm: &TransactionManager, index: u32) -> Result<T> {
        let mut value = MaybeUninit::<T>::uninit();
        tm.read(|tm| {
            // SAFETY: The description is initialised, and `value` has room for one of its size.
            with_info::<T>(tm, |info| unsafe {
                bindings::dm_array_get_value(info, self.root, index, value.as_mut_ptr().cast())
            })
        })?;
        // SAFETY: The call has succeeded, so it has written all of the value.
        Ok(unsafe { value.assume_init() }.swap_le())
    }
}

/// Calls `f` with C's description of arrays of `T`, plain numbers that own nothing. It refers to
/// itself, hence is made where it is used; that costs a few stores.
fn with_info<T: ArrayValue>(
    tm: *mut bindings::dm_transaction_manager,
    f: impl FnOnce(*mut bindings::dm_array_info) -> c_int,
) -> c_int {
    let mut value_type = bindings::dm_btree_value_type {
        context: core::ptr::null_mut(),
        size: size_of::<T>() as u32,
        inc: None,
        dec: None,
        equal: None,
    };
    let mut info = MaybeUninit::<bindings::dm_array_info>::zeroed();
    // SAFETY: `info` is written by the call, which copies `value_type`.
    unsafe { bindings::dm_array_info_init(info.as_mut_ptr(), tm, &mut value_type) };
    f(info.as_mut_ptr())
}

/// A place in an array, and the blocks that lead to it, locked.
///
/// # Invariants
///
/// `raw` is the cursor of an array of `T`, and was begun.
struct Cursor<T> {
    raw: MaybeUninit<bindings::dm_array_cursor>,
    _values: PhantomData<T>,
}

impl<T: ArrayValue> Cursor<T> {
    /// Calls `f` with a cursor at the first value of the array at `root`.
    ///
    /// # Safety
    ///
    /// `info` must describe arrays of `T`.
    unsafe fn with(
        info: *mut bindings::dm_array_info,
        root: u64,
        f: impl FnOnce(&mut Self) -> Result,
    ) -> Result {
        // INVARIANT: Begun below. It does not move from here to its drop.
        let mut cursor = Cursor {
            raw: MaybeUninit::zeroed(),
            _values: PhantomData,
        };
        // SAFETY: The description is initialised, and the cursor is a live local.
        // Even if this fails it may have locked blocks, so the cursor is ended in any case.
        to_result(unsafe { bindings::dm_array_cursor_begin(info, root, cursor.raw.as_mut_ptr()) })?;
        f(&mut cursor)
    }

    /// Calls `f` with the values from here on, `len` of them, which is not 0. A block has room for
    /// `per_block`.
    fn walk(&mut self, len: u32, per_block: u32, f: &mut impl FnMut(u32, T) -> Result) -> Result {
        f(0, self.value(per_block)?)?;
        for index in 1..len {
            // SAFETY: By the type invariants, the cursor was begun; no step before has failed.
            to_result(unsafe { bindings::dm_array_cursor_next(self.raw.as_mut_ptr()) })?;
            f(index, self.value(per_block)?)?;
        }
        Ok(())
    }

    /// The value here. Only called while the last step has succeeded. Fails with `EILSEQ` if the
    /// block says that it has more values than it has room for, as one of smaller values may.
    fn value(&mut self, per_block: u32) -> Result<T> {
        // SAFETY: By the type invariants, the cursor was begun, which has set it.
        if unsafe { (*self.raw.as_ptr()).index } >= per_block {
            return Err(compat::eilseq());
        }
        let mut value = core::ptr::null_mut();
        // SAFETY: By the type invariants, the cursor was begun; `value` is a live local.
        unsafe { bindings::dm_array_cursor_get_value(self.raw.as_mut_ptr(), &mut value) };
        // SAFETY: The value was just seen to lie within its block, which is locked; it need not be
        // aligned.
        Ok(unsafe { value.cast::<T>().read_unaligned() }.swap_le())
    }
}

impl<T> Drop for Cursor<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the cursor was begun. Ending it unlocks what it has
        // locked, which may be nothing.
        unsafe { bindings::dm_array_cursor_end(self.raw.as_mut_ptr()) }
    }
}
