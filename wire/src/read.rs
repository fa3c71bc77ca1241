//! Reading big-endian fields in place.

use zerocopy::FromBytes;
use zerocopy::byteorder::big_endian::{I32, I64};

use crate::error::{Error, What, number};

/// A place in a slice. Offsets in errors count from the start of the slice the caller decodes,
/// of which `bytes` may be a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    base: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.base + self.at
    }

    pub(crate) fn left_bytes(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn fixed<T: FromBytes + Copy>(&mut self, what: What) -> Result<T, Error> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let (value, _) = T::read_from_prefix(rest).map_err(|_| Error {
            what,
            offset: self.offset(),
            value: number(rest.len()),
            limit: number(size_of::<T>()),
        })?;
        self.at += size_of::<T>();
        Ok(value)
    }

    pub(crate) fn i32(&mut self, what: What) -> Result<i32, Error> {
        self.fixed::<I32>(what).map(I32::get)
    }

    pub(crate) fn i64(&mut self, what: What) -> Result<i64, Error> {
        self.fixed::<I64>(what).map(I64::get)
    }

    pub(crate) fn i8(&mut self, what: What) -> Result<i8, Error> {
        self.fixed::<i8>(what)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: What) -> Result<&'a [u8; N], Error> {
        let (offset, left_bytes) = (self.offset(), self.left_bytes());
        let array = self.bytes[self.at..].first_chunk().ok_or(Error {
            what,
            offset,
            value: number(left_bytes),
            limit: number(N),
        })?;
        self.at += N;
        Ok(array)
    }

    /// `length` bytes; `offset` is where that length stood.
    pub(crate) fn slice(
        &mut self,
        length: i64,
        what: What,
        offset: usize,
    ) -> Result<&'a [u8], Error> {
        let left_bytes = self.left_bytes();
        let wanted = usize::try_from(length).ok().filter(|wanted| *wanted <= left_bytes);
        let Some(wanted) = wanted else {
            return Err(Error { what, offset, value: length, limit: number(left_bytes) });
        };
        let slice = &self.bytes[self.at..self.at + wanted];
        self.at += wanted;
        Ok(slice)
    }

    /// An int with a length, then so many bytes.
    pub(crate) fn counted(&mut self, what: What) -> Result<&'a [u8], Error> {
        let offset = self.offset();
        let length = self.i32(what)?;
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
