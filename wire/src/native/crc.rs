//! CRC-32C (Castagnoli; RFC 3720, appendix B.4), by the processor's instruction where there is one.

/// CRC-32C of `bytes`, continued from the CRC `before` of what comes before them (0: nothing).
#[cfg(feature = "std")]
#[must_use]
pub fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(before, bytes)
}

/// CRC-32C of `bytes`, continued from the CRC `before` of what comes before them (0: nothing).
#[cfg(not(feature = "std"))]
#[must_use]
pub fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    by_table(before, bytes)
}

#[cfg(any(test, not(feature = "std")))]
fn by_table(before: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_u32;
        while byte < 256 {
            let mut crc = byte;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte as usize] = crc;
            byte += 1;
        }
        table
    };
    let mut crc = !before;
    for byte in bytes {
        let [low, ..] = crc.to_le_bytes();
        crc = crc >> 8 ^ TABLE[usize::from(low ^ byte)];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::{by_table, crc32c};

    #[test]
    fn both_ways_agree_with_the_check_value_and_each_other() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(by_table(0, b"123456789"), 0xe306_9283);
        // RFC 3720, B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        let bytes: [u8; 77] = core::array::from_fn(|n| (n * 37).to_le_bytes()[0]);
        let whole = crc32c(0, &bytes);
        for at in 0..bytes.len() {
            assert_eq!(crc32c(crc32c(0, &bytes[..at]), &bytes[at..]), whole);
            assert_eq!(by_table(crc32c(0, &bytes[..at]), &bytes[at..]), whole);
        }
    }
}
