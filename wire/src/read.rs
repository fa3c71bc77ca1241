//! Reading big-endian fields in place.

use zerocopy::FromBytes;
use zerocopy::byteorder::big_endian::{I32, I64};

use crate::error::{Error, What, number};

/// A place in a slice. Offsets in errors count from the start of the slice the caller decodes,
/// of which `bytes` may be a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    /// What is not read yet.
    rest: &'a [u8],
    offset: usize,
    /// What is wrong if a field of fixed size is cut off.
    cut_off: What,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8], offset: usize, cut_off: What) -> Self {
        Self { rest: bytes, offset, cut_off }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn left_bytes(&self) -> usize {
        self.rest.len()
    }

    const fn skip(&mut self, rest: &'a [u8]) {
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
    }

    fn short(&self, wanted_bytes: usize) -> Error {
        Error {
            what: self.cut_off,
            offset: self.offset,
            value: number(self.rest.len()),
            limit: number(wanted_bytes),
        }
    }

    fn fixed<T: FromBytes>(&mut self) -> Result<T, Error> {
        let (value, rest) =
            T::read_from_prefix(self.rest).map_err(|_| self.short(size_of::<T>()))?;
        self.skip(rest);
        Ok(value)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, Error> {
        self.fixed()
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Error> {
        self.fixed::<I32>().map(I32::get)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Error> {
        self.fixed::<I64>().map(I64::get)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Error> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(self.short(N))?;
        self.skip(rest);
        Ok(array)
    }

    /// `length` bytes; `offset` is where that length stood, `what` is wrong if they are not there.
    pub(crate) fn slice(
        &mut self,
        length: i64,
        what: What,
        offset: usize,
    ) -> Result<&'a [u8], Error> {
        let wanted = usize::try_from(length).ok();
        let Some((slice, rest)) = wanted.and_then(|wanted| self.rest.split_at_checked(wanted))
        else {
            return Err(Error { what, offset, value: length, limit: number(self.rest.len()) });
        };
        self.skip(rest);
        Ok(slice)
    }

    /// An int with a length, then so many bytes.
    pub(crate) fn counted(&mut self, what: What) -> Result<&'a [u8], Error> {
        let offset = self.offset;
        let length = self.i32()?;
        self.slice(i64::from(length), what, offset)
    }
}

/// Compares a marker; a marker that is cut off but right so far is no error.
pub(crate) fn marker(
    bytes: &[u8],
    expected: &[u8],
    what: What,
    offset: usize,
) -> Result<(), Error> {
    match bytes.iter().zip(expected).find(|(is, should)| is != should) {
        None => Ok(()),
        Some((is, should)) => {
            Err(Error { what, offset, value: i64::from(*is), limit: i64::from(*should) })
        }
    }
}
