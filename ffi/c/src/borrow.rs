//! What a C caller lends for the time of a call, checked before it is touched. The only unsafe
//! code of the library stands here.
//!
//! An [`In`] or [`Out`] cannot be made in Rust: it comes as an argument of an exported function, or
//! inside a struct that came so. Hence the C caller made it, and `ringtribe.h` binds every caller
//! ("Pointers"): what is not null points to memory of the stated length that lives and is not
//! written by others until the call returns. The SAFETY comments call this *the promise*. Null,
//! misaligned and too long are found here and refused. A pointer has no `Send`, so neither type
//! leaves the calling thread, and what is borrowed from one ends with the call's own variables.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use ringtribe::status::Status;

use crate::abi::{Attribute, Delivery, MemberInfo, Message};

/// Something to be read; may be null.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

/// Something to be written; may be null.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

/// A value that C may fill with any bits.
///
/// # Safety
/// Every bit pattern is a valid value.
pub(crate) unsafe trait Plain: Copy {}

/// A struct that grows from version to version.
///
/// # Safety
/// `#[repr(C)]`, and its first field is a `u32`: the size of the struct as its user knows it.
pub(crate) unsafe trait Versioned: Plain {
    /// Its size in the first version that had it.
    const LEAST_BYTES: usize;
}

// SAFETY: numbers have no invalid values.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: raw pointers, which may have any bits as well.
unsafe impl Plain for Attribute {}
// SAFETY: numbers and raw pointers.
unsafe impl Plain for Message {}
// SAFETY: numbers.
unsafe impl Plain for MemberInfo {}
// SAFETY: numbers and raw pointers.
unsafe impl Plain for Delivery {}

// SAFETY: `repr(C)`, and the size stands first; so it is of the next two.
unsafe impl Versioned for Message {
    const LEAST_BYTES: usize = 48;
}
// SAFETY: as above.
unsafe impl Versioned for MemberInfo {
    const LEAST_BYTES: usize = 112;
}
// SAFETY: as above.
unsafe impl Versioned for Delivery {
    const LEAST_BYTES: usize = 192;
}

/// No version of a struct is larger; a larger size was not initialised.
const STRUCT_LIMIT_BYTES: usize = 4096;

fn version_size<T: Versioned>(stated: u32) -> Result<usize, Status> {
    let size = usize::try_from(stated).map_err(|_| Status::BadArgument)?;
    let known = T::LEAST_BYTES..=STRUCT_LIMIT_BYTES;
    if known.contains(&size) { Ok(size) } else { Err(Status::BadArgument) }
}

impl<T> In<T> {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

impl<T: Plain> In<T> {
    /// `count` values, at most `limit_count`. For none the pointer is not looked at.
    pub(crate) fn slice(&self, count: usize, limit_count: usize) -> Result<&[T], Status> {
        if count == 0 {
            return Ok(&[]);
        }
        let fits = count <= limit_count.min(isize::MAX as usize / size_of::<T>());
        if !fits || self.0.is_null() || !self.0.is_aligned() {
            return Err(Status::BadArgument);
        }
        // SAFETY: not null, aligned, and not longer than an allocation can be, all just checked;
        // `count` values that nobody writes meanwhile by the promise; any bits are valid (`Plain`).
        Ok(unsafe { core::slice::from_raw_parts(self.0, count) })
    }
}

impl<T: Versioned> In<T> {
    /// A copy in this version: fields that an older caller does not know are 0. A newer caller's
    /// fields that this version does not know must be 0.
    pub(crate) fn value(&self) -> Result<T, Status> {
        if self.0.is_null() || !self.0.is_aligned() {
            return Err(Status::BadArgument);
        }
        // SAFETY: not null and aligned; by the promise at least the size stands there, and it is
        // the first field (`Versioned`).
        let stated = unsafe { self.0.cast::<u32>().read() };
        let size = version_size::<T>(stated)?;
        let own = size_of::<T>();
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: `size` bytes are there by the promise, `own` in `value`; the copy takes the
        // smaller number, and the two do not overlap, since `value` is a new variable.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.0.cast::<u8>(),
                value.as_mut_ptr().cast::<u8>(),
                size.min(own),
            );
        }
        if size > own {
            // SAFETY: the bytes from `own` to `size` are inside what the caller promised.
            let newer =
                unsafe { core::slice::from_raw_parts(self.0.cast::<u8>().add(own), size - own) };
            if newer.iter().any(|byte| *byte != 0) {
                return Err(Status::Unsupported);
            }
        }
        // SAFETY: zeroed at first, so every byte is written, and any bits are valid (`Plain`).
        Ok(unsafe { value.assume_init() })
    }
}

impl In<c_char> {
    /// A string of at most `limit_bytes` of UTF-8, without its 0.
    pub(crate) fn text(&self, limit_bytes: usize) -> Result<&str, Status> {
        if self.0.is_null() {
            return Err(Status::BadArgument);
        }
        let mut length = 0;
        // SAFETY: by the promise the string ends with a 0, and none of the bytes up to it was
        // another one that would have ended the loop.
        while unsafe { self.0.add(length).read() } != 0 {
            length += 1;
            if length > limit_bytes {
                return Err(Status::BadArgument);
            }
        }
        // SAFETY: the `length` bytes before the 0 were just read one by one.
        let bytes = unsafe { core::slice::from_raw_parts(self.0.cast::<u8>(), length) };
        core::str::from_utf8(bytes).map_err(|_| Status::BadArgument)
    }
}

impl<T> Out<T> {
    /// Room for one value: refuses null.
    pub(crate) fn required(self) -> Result<Room<T>, Status> {
        self.room(1)
    }

    /// Room for `count` values; null only for none.
    pub(crate) fn room(self, count: usize) -> Result<Room<T>, Status> {
        let unusable = self.0.is_null() || !self.0.is_aligned();
        if count > isize::MAX as usize / size_of::<T>() || count > 0 && unusable {
            return Err(Status::BadArgument);
        }
        Ok(Room { at: self.0, count })
    }

    /// Room for one value, or for none if null.
    pub(crate) fn optional(self) -> Result<Room<T>, Status> {
        let count = usize::from(!self.0.is_null());
        self.room(count)
    }
}

/// Checked room for `count` values; if that is not 0, `at` is not null and aligned. Made by [`Out`]
/// only.
pub(crate) struct Room<T> {
    at: *mut T,
    count: usize,
}

impl<T: Copy> Room<T> {
    /// Writes as many of `values` as there is room for.
    pub(crate) fn put(&self, values: &[T]) {
        let count = values.len().min(self.count);
        if count > 0 {
            // SAFETY: not null and aligned (invariant), room for `self.count` values by the
            // promise; `values` is Rust's and so apart from it.
            unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), self.at, count) }
        }
    }
}

impl Room<c_char> {
    /// Writes what fits of `text`, whole characters, and a 0.
    pub(crate) fn put_text(&self, text: &str) {
        let Some(most) = self.count.checked_sub(1) else { return };
        let length = text.floor_char_boundary(most);
        let bytes: Vec<c_char> =
            text.as_bytes()[..length].iter().map(|byte| byte.cast_signed() as c_char).collect();
        self.put(&bytes);
        // SAFETY: `length` is below `self.count`, so the 0 is inside the room (invariant, promise).
        unsafe { self.at.add(length).write(0) }
    }
}

/// Room for a struct of the caller's version.
pub(crate) struct VersionedRoom<T> {
    at: *mut T,
    size: usize,
    stated: u32,
}

impl<T: Versioned> Out<T> {
    /// Room for one struct whose size the caller has stated in it.
    pub(crate) fn versioned(self) -> Result<VersionedRoom<T>, Status> {
        let at = self.required()?.at;
        // SAFETY: not null and aligned; the caller has written the size, the first field.
        let stated = unsafe { at.cast::<u32>().read() };
        Ok(VersionedRoom { at, size: version_size::<T>(stated)?, stated })
    }
}

impl<T: Versioned> VersionedRoom<T> {
    /// Writes what the caller's version knows; what only the caller knows becomes 0.
    pub(crate) fn put(&self, value: &T) {
        let own = size_of::<T>();
        // SAFETY: `self.size` bytes are there by the promise, `own` in `value`; the copy takes the
        // smaller number. The rest up to `self.size` is zeroed, and the first four bytes get back
        // what stood there. `value` is Rust's and so apart from it.
        unsafe {
            core::ptr::copy_nonoverlapping(
                core::ptr::from_ref(value).cast::<u8>(),
                self.at.cast::<u8>(),
                self.size.min(own),
            );
            if self.size > own {
                self.at.cast::<u8>().add(own).write_bytes(0, self.size - own);
            }
            self.at.cast::<u32>().write(self.stated);
        }
    }
}

/// A pointer that C reads and Rust never does: into memory that Rust owns.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Lent<T>(*const T);

impl<T> Lent<T> {
    /// Whoever tells C must keep `values` where they are for as long as C was told.
    pub(crate) const fn of(values: &[T]) -> Self {
        Self(values.as_ptr())
    }

    pub(crate) const fn null() -> Self {
        Self(core::ptr::null())
    }
}

/// The caller's part is played on memory of the exact length, so that Miri and AddressSanitizer see
/// every step beyond it.
#[cfg(test)]
mod tests {
    use super::*;

    /// A struct of the caller as words, its size stated in the first four bytes.
    fn of_caller(words_count: usize, fill: u64) -> Box<[u64]> {
        let mut words = vec![fill; words_count].into_boxed_slice();
        words[0] = 8 * words_count as u64;
        words
    }

    fn message_in(words: &[u64]) -> Result<Message, Status> {
        In(words.as_ptr().cast::<Message>()).value()
    }

    #[test]
    fn a_struct_of_another_version_is_read_to_its_own_end() {
        let own = size_of::<Message>() / 8;
        assert_eq!(message_in(&of_caller(own, 0)).map(|message| message.size), Ok(48));
        let mut newer = of_caller(own + 2, 0);
        assert_eq!(message_in(&newer).map(|message| message.size), Ok(64));
        newer[own + 1] = 1 << 63;
        assert_eq!(message_in(&newer).err(), Some(Status::Unsupported));
        // Neither is read beyond its size.
        for stated in [0, 47, 4097, u64::from(u32::MAX)] {
            assert_eq!(message_in(&[stated]).err(), Some(Status::BadArgument), "{stated}");
        }
        let odd = In(newer.as_ptr().cast::<u8>().wrapping_add(4).cast::<Message>());
        assert_eq!(odd.value().err(), Some(Status::BadArgument));
        assert_eq!(In::<Message>(core::ptr::null()).value().err(), Some(Status::BadArgument));
    }

    #[test]
    fn a_struct_of_another_version_is_written_to_its_own_end() {
        let own = size_of::<MemberInfo>() / 8;
        for words_count in [own, own + 2] {
            let mut words = of_caller(words_count, u64::MAX);
            let info = MemberInfo {
                size: 0,
                port: 4000,
                member: 7,
                alive_ms: 1,
                queued_bytes: 2,
                unique_id: [3; 16],
                host: [4; 64],
            };
            let room = Out(words.as_mut_ptr().cast::<MemberInfo>()).versioned().expect("sizes");
            room.put(&info);
            assert_eq!(words[0], (4000 << 32) | (8 * words_count as u64), "the size stays");
            assert_eq!(words[1], 7);
            assert!(words[own..].iter().all(|word| *word == 0), "unknown fields become 0");
        }
    }

    #[test]
    fn a_text_is_read_to_its_limit_and_written_in_whole_characters() {
        let text = |bytes: &[u8], limit_bytes| {
            let exact: Box<[u8]> = bytes.into();
            In(exact.as_ptr().cast::<c_char>()).text(limit_bytes).map(str::to_owned)
        };
        assert_eq!(text(b"ab\0", 2).as_deref(), Ok("ab"));
        assert_eq!(text(b"\0", 0).as_deref(), Ok(""));
        assert_eq!(text(b"abc", 2), Err(Status::BadArgument), "no 0 up to the limit");
        assert_eq!(text(b"\xff\0", 9), Err(Status::BadArgument), "no UTF-8");
        for (room_bytes, written) in
            [(0, &b""[..]), (1, b"\0"), (3, "\u{e4}\0".as_bytes()), (4, "\u{e4}\0".as_bytes())]
        {
            let mut exact = vec![1_u8; room_bytes].into_boxed_slice();
            let out = Out(exact.as_mut_ptr().cast::<c_char>());
            out.room(room_bytes).expect("not null").put_text("\u{e4}\u{f6}");
            assert_eq!(&exact[..written.len()], written);
        }
    }

    #[test]
    fn slices_and_rooms_keep_to_their_counts() {
        let words: Box<[u64]> = [1, 2, 3].into();
        assert_eq!(In(words.as_ptr()).slice(3, 3), Ok(&[1, 2, 3][..]));
        assert_eq!(In(words.as_ptr()).slice(4, 3), Err(Status::BadArgument));
        assert_eq!(In(words.as_ptr()).slice(usize::MAX, usize::MAX), Err(Status::BadArgument));
        assert_eq!(In::<u64>(core::ptr::null()).slice(0, 3), Ok(&[][..]));
        assert_eq!(In::<u64>(core::ptr::null()).slice(1, 3), Err(Status::BadArgument));
        let mut room = vec![9_u64; 2].into_boxed_slice();
        Out(room.as_mut_ptr()).room(2).expect("not null").put(&words);
        assert_eq!(*room, [1, 2]);
        Out(room.as_mut_ptr()).room(1).expect("not null").put(&[5, 6]);
        assert_eq!(*room, [5, 2]);
        assert!(Out::<u64>(core::ptr::null_mut()).required().is_err());
        Out::<u64>(core::ptr::null_mut()).optional().expect("for none").put(&words);
    }
}
