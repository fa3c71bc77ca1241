//! An input read as a script: numbers and bytes, one after the other, zeroes after its end.

/// What is left of a script.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// The whole of it.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number that is small for most first bytes, near the largest for some, and anything for
    /// others.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=199 => u64::from(small),
            255 => self.u64(),
            254 => u64::MAX - u64::from(self.u8()),
            253 => u64::from(self.u32()),
            252 => i64::MAX.cast_unsigned().wrapping_add(u64::from(self.u8())).wrapping_sub(3),
            _ => u64::from(self.u16()),
        }
    }

    /// As [`Self::number`], cut to 32 bits.
    #[allow(clippy::cast_possible_truncation, reason = "cut on purpose")]
    pub fn number32(&mut self) -> u32 {
        self.number() as u32
    }

    /// 16 bytes of one value, so that the same comes often.
    pub fn id(&mut self) -> [u8; 16] {
        [self.u8(); 16]
    }

    /// As many of `count` bytes as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length of one byte, then so many; or of two bytes behind 255.
    pub fn counted(&mut self) -> &'a [u8] {
        let count = match self.u8() {
            255 => usize::from(self.u16()),
            count => usize::from(count),
        };
        self.bytes(count)
    }
}
