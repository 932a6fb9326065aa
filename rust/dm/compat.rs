// SPDX-License-Identifier: GPL-2.0

//! What differs between the kernels that we build for, and only here.
//!
//! | kernel | what is missing | instead |
//! |---|---|---|
//! | 7.2 | names for most errnos above 34 in the kernel crate | the functions below |

use crate::bindings;
use kernel::prelude::*;

fn errno(number: u32) -> Error {
    Error::from_errno(-(number as kernel::ffi::c_int))
}

/// `EOPNOTSUPP`: the operation is not supported.
pub fn eopnotsupp() -> Error {
    errno(bindings::EOPNOTSUPP)
}

/// `EILSEQ`: what was read is not what should be there.
pub fn eilseq() -> Error {
    errno(bindings::EILSEQ)
}

/// `ETIMEDOUT`: what was waited for did not come in time.
pub fn etimedout() -> Error {
    errno(bindings::ETIMEDOUT)
}

/// `ELOOP`: something would go round in a circle.
pub fn eloop() -> Error {
    errno(bindings::ELOOP)
}

/// `ENAMETOOLONG`: a name does not fit.
pub fn enametoolong() -> Error {
    errno(bindings::ENAMETOOLONG)
}
