// SPDX-License-Identifier: GPL-2.0

//! The one place that is not safe: an ioctl on a buffer, for requests whose length is told within it.

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl;

/// A request whose argument is a buffer.
struct Request<'a> {
    code: ioctl::Opcode,
    buffer: &'a mut [u8],
}

// SAFETY: the pointer is valid, for reads and writes, for the length of the buffer, which is borrowed as long
// as the request lives. That the kernel writes no more than that is the promise of `call`'s callers.
unsafe impl ioctl::Ioctl for Request<'_> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> ioctl::Opcode {
        self.code
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(result: ioctl::IoctlOutput, _: *mut std::ffi::c_void) -> Result<i32> {
        Ok(result)
    }
}

/// The requests that are known here. Each tells the kernel in its header how long the buffer is, or is of a
/// length that its number holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request to device-mapper, by its number. The length is `data_size`, at byte 12.
    Dm(u8),
    /// `FS_IOC_FIEMAP`. The length is 32 bytes and 56 for each of `fm_extent_count`, at byte 24.
    Fiemap,
    /// `FS_IOC_FSGETXATTR`: 28 bytes.
    Attributes,
}

impl Kind {
    fn code(self) -> ioctl::Opcode {
        match self {
            Kind::Dm(number) => {
                ioctl::opcode::from_components(ioctl::Direction::ReadWrite, 0xfd, number, 312)
            }
            Kind::Fiemap => {
                ioctl::opcode::from_components(ioctl::Direction::ReadWrite, b'f', 11, 32)
            }
            Kind::Attributes => {
                ioctl::opcode::from_components(ioctl::Direction::Read, b'X', 31, 28)
            }
        }
    }

    /// How many bytes of the buffer the kernel may read or write. One without a length is never long enough.
    fn length(self, buffer: &[u8]) -> usize {
        let told = |at: usize| number(buffer, at).map_or(usize::MAX, |length| length as usize);
        match self {
            Kind::Dm(_) => told(12).max(312),
            Kind::Fiemap => told(24).saturating_mul(56).saturating_add(32),
            Kind::Attributes => 28,
        }
    }
}

/// Makes a request. A buffer that is shorter than the kernel will take it to be is an error.
pub fn call(fd: impl AsFd, kind: Kind, buffer: &mut [u8]) -> Result<i32> {
    if kind.length(buffer) > buffer.len() {
        return Err(rustix::io::Errno::INVAL);
    }
    let request = Request {
        code: kind.code(),
        buffer,
    };
    // SAFETY: the code is that of a request of this kind, and the buffer is as long as such a request may use.
    unsafe { ioctl::ioctl(fd, request) }
}

/// A number of 32 bits; none beyond the end.
fn number(buffer: &[u8], at: usize) -> Option<u32> {
    let bytes = buffer.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// The bytes of a buffer from a place on; fewer, if it ends.
pub fn get(buffer: &[u8], at: usize, len: usize) -> &[u8] {
    let rest = buffer.get(at..).unwrap_or_default();
    &rest[..len.min(rest.len())]
}

/// Puts bytes into a buffer; nothing, if they would reach beyond its end.
pub fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    let place = at
        .checked_add(bytes.len())
        .and_then(|end| buffer.get_mut(at..end));
    if let Some(place) = place {
        place.copy_from_slice(bytes);
    }
}

/// A number of 32 bits from a buffer; 0 beyond its end.
pub fn get_u32(buffer: &[u8], at: usize) -> u32 {
    number(buffer, at).unwrap_or_default()
}

/// A number of 64 bits from a buffer; 0 beyond its end.
pub fn get_u64(buffer: &[u8], at: usize) -> u64 {
    let bytes = buffer.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_where_they_should() {
        let mut bytes = vec![0; 24];
        put(&mut bytes, 6, b"abcdef");
        assert_eq!(get(&bytes, 5, 8), b"\0abcdef\0");
        assert_eq!((get(&bytes, 22, 9).len(), get(&bytes, 90, 9).len()), (2, 0));
        put(&mut bytes, 20, b"beyond the end");
        put(&mut bytes, usize::MAX, b"far beyond");
        put(&mut bytes, 12, &7u32.to_ne_bytes());
        assert_eq!(
            (
                get_u32(&bytes, 12),
                get_u32(&bytes, 21),
                get_u64(&bytes, 999)
            ),
            (7, 0, 0)
        );
        assert_eq!(&bytes[16..], [0; 8]);
    }

    #[test]
    fn a_buffer_that_is_too_short_never_reaches_the_kernel() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut short = vec![0; 312];
        put(&mut short, 12, &4096u32.to_ne_bytes());
        assert_eq!(
            call(&file, Kind::Dm(14), &mut short),
            Err(rustix::io::Errno::INVAL)
        );
        assert_eq!(
            call(&file, Kind::Dm(0), &mut [0; 100]),
            Err(rustix::io::Errno::INVAL)
        );
        let mut extents = vec![0; 32];
        put(&mut extents, 24, &1u32.to_ne_bytes());
        assert_eq!(
            call(&file, Kind::Fiemap, &mut extents),
            Err(rustix::io::Errno::INVAL)
        );
        assert_eq!(
            call(&file, Kind::Fiemap, &mut []),
            Err(rustix::io::Errno::INVAL)
        );
    }
}
