// SPDX-License-Identifier: GPL-2.0

//! A queue of bios, first in, first out, linked through the bios themselves.
//!
//! It needs no memory, so a bio can be queued in any context. The list owns what is in it: bios
//! that are left when it is dropped are ended as their type says.
//!
//! ```ignore
//! // Take all of them under the lock, and work on them without it.
//! let bios = self.waiting.lock().take_all();
//! for bio in bios {
//!     bio.submit(&self.dev, 0);
//! }
//! ```

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// A value that owns exactly one bio.
///
/// # Safety
///
/// `into_raw` must give up the bio without ending it, and `from_raw` must make a value that is
/// equal to the one it was made from. While only the pointer exists, the bio's `bi_next` must be
/// unused.
pub unsafe trait Owned: Sized {
    /// Gives the bio to a pointer.
    #[doc(hidden)]
    fn into_raw(self) -> *mut bindings::bio;

    /// Takes the bio back.
    ///
    /// # Safety
    ///
    /// `bio` must come from [`into_raw`](Self::into_raw) of the same type, once for each time.
    #[doc(hidden)]
    unsafe fn from_raw(bio: *mut bindings::bio) -> Self;
}

/// A queue of bios of one kind. Not locked: keep it in an [`IrqLock`](crate::irq_lock::IrqLock).
///
/// # Invariants
///
/// From `head`, following `bi_next`, come the bios of the list, the last of which is `tail` and has
/// a null `bi_next`. Each comes from `B::into_raw`.
pub struct BioList<B: Owned> {
    head: *mut bindings::bio,
    tail: Option<NonNull<bindings::bio>>,
    _owned: PhantomData<B>,
}

// SAFETY: The list owns its bios, as values of type `B` would.
unsafe impl<B: Owned + Send> Send for BioList<B> {}

impl<B: Owned> BioList<B> {
    /// An empty list.
    pub const fn new() -> Self {
        // INVARIANT: There is no bio.
        BioList {
            head: core::ptr::null_mut(),
            tail: None,
            _owned: PhantomData,
        }
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds a bio at the end.
    pub fn push(&mut self, bio: B) {
        let bio = bio.into_raw();
        // SAFETY: The bio is ours, and its link unused.
        unsafe { (*bio).bi_next = core::ptr::null_mut() };
        // INVARIANT: The new bio is the last one.
        match self.tail {
            // SAFETY: By the type invariants, `tail` is a bio of the list.
            Some(tail) => unsafe { (*tail.as_ptr()).bi_next = bio },
            None => self.head = bio,
        }
        self.tail = NonNull::new(bio);
    }

    /// Takes the first bio.
    pub fn pop(&mut self) -> Option<B> {
        let bio = NonNull::new(self.head)?.as_ptr();
        // SAFETY: By the type invariants, `head` is a bio of the list.
        self.head = unsafe { (*bio).bi_next };
        if self.head.is_null() {
            self.tail = None;
        }
        // SAFETY: The bio is ours; it is in no list now.
        unsafe { (*bio).bi_next = core::ptr::null_mut() };
        // SAFETY: The bio comes from `B::into_raw`, and has left the list.
        Some(unsafe { B::from_raw(bio) })
    }

    /// Takes all bios, in order.
    pub fn take_all(&mut self) -> Self {
        core::mem::take(self)
    }

    /// Adds the bios of `other` at the end, in order.
    pub fn append(&mut self, mut other: Self) {
        let Some(tail) = other.tail.take() else {
            return;
        };
        let head = core::mem::replace(&mut other.head, core::ptr::null_mut());
        // INVARIANT: `other` is empty now; its bios follow ours.
        match self.tail {
            // SAFETY: By the type invariants, `tail` is a bio of the list.
            Some(tail) => unsafe { (*tail.as_ptr()).bi_next = head },
            None => self.head = head,
        }
        self.tail = Some(tail);
    }
}

impl<B: Owned> Default for BioList<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Owned> Iterator for BioList<B> {
    type Item = B;

    fn next(&mut self) -> Option<B> {
        self.pop()
    }
}

impl<B: Owned> Drop for BioList<B> {
    fn drop(&mut self) {
        while let Some(bio) = self.pop() {
            drop(bio);
        }
    }
}
