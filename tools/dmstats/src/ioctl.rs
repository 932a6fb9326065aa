// SPDX-License-Identifier: GPL-2.0

//! The one place that is not safe: an ioctl on a buffer, for requests whose length is told within it.

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl;

/// A request whose argument is a buffer.
struct Request<'a> {
    code: ioctl::Opcode,
    buffer: &'a mut [u64],
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

    /// How many bytes of the buffer the kernel may read or write.
    fn length(self, buffer: &[u64]) -> usize {
        let word = |index: usize| buffer.get(index).copied().unwrap_or(u64::MAX).to_ne_bytes();
        let half = |bytes: [u8; 8], at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
        };
        match self {
            Kind::Dm(_) => half(word(1), 4).max(312),
            Kind::Fiemap => half(word(3), 0).saturating_mul(56).saturating_add(32),
            Kind::Attributes => 28,
        }
    }
}

/// Makes a request. A buffer that is shorter than the kernel will take it to be is an error.
pub fn call(fd: impl AsFd, kind: Kind, buffer: &mut [u64]) -> Result<i32> {
    if kind.length(buffer) > size_of_val(buffer) {
        return Err(rustix::io::Errno::INVAL);
    }
    let request = Request {
        code: kind.code(),
        buffer,
    };
    // SAFETY: the code is that of a request of this kind, and the buffer is as long as such a request may use.
    unsafe { ioctl::ioctl(fd, request) }
}

/// A buffer of so many bytes, rounded up, of zeroes.
pub fn buffer(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(8)]
}

/// The bytes of a buffer from a place on; fewer, if it ends.
pub fn get(buffer: &[u64], at: usize, len: usize) -> Vec<u8> {
    let end = at.saturating_add(len).min(size_of_val(buffer));
    let words = buffer.get(at / 8..end.div_ceil(8)).unwrap_or_default();
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    bytes.skip(at % 8).take(end.saturating_sub(at)).collect()
}

/// Puts bytes into a buffer; those beyond its end are left out.
pub fn put(buffer: &mut [u64], at: usize, bytes: &[u8]) {
    for (offset, byte) in bytes.iter().enumerate() {
        let place = at + offset;
        if let Some(word) = buffer.get_mut(place / 8) {
            let mut all = word.to_ne_bytes();
            all[place % 8] = *byte;
            *word = u64::from_ne_bytes(all);
        }
    }
}

/// A number of 32 bits from a buffer.
pub fn get_u32(buffer: &[u64], at: usize) -> u32 {
    get(buffer, at, 4).try_into().map_or(0, u32::from_ne_bytes)
}

/// A number of 64 bits from a buffer.
pub fn get_u64(buffer: &[u64], at: usize) -> u64 {
    get(buffer, at, 8).try_into().map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_where_they_should() {
        let mut words = buffer(20);
        put(&mut words, 6, b"abcdef");
        assert_eq!(
            (words.len(), get(&words, 5, 8)),
            (3, b"\0abcdef\0".to_vec())
        );
        assert_eq!((get(&words, 22, 9).len(), get(&words, 90, 9).len()), (2, 0));
        put(&mut words, 20, b"beyond the end");
        put(&mut words, 12, &7u32.to_ne_bytes());
        assert_eq!((get_u32(&words, 12), get_u32(&words, 999)), (7, 0));
    }

    #[test]
    fn a_buffer_that_is_too_short_never_reaches_the_kernel() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut short = buffer(312);
        put(&mut short, 12, &4096u32.to_ne_bytes());
        assert_eq!(
            call(&file, Kind::Dm(14), &mut short),
            Err(rustix::io::Errno::INVAL)
        );
        assert_eq!(
            call(&file, Kind::Dm(0), &mut buffer(100)),
            Err(rustix::io::Errno::INVAL)
        );
        let mut extents = buffer(32);
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
