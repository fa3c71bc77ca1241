/// What a decoder accepts. A stock Tomcat has no limits but those of a Java array.
///
/// A length beyond its limit is refused as soon as its bytes are there, before anything waits for,
/// or makes room for, so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest body of a frame, in bytes: the message with its envelope, without the 18 bytes of
    /// header, length and footer. Default 256 MiB and the envelope, so that a state transfer of
    /// 100 MB and more passes. Beyond 2^31 - 1 it limits nothing.
    pub max_frame_bytes: usize,
    /// Longest member package, in bytes. Default 64 KiB, the size of a datagram, since a member
    /// package must fit one.
    pub max_member_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let max_member_bytes = 64 << 10;
        Self { max_frame_bytes: (256 << 20) + max_member_bytes + 1024, max_member_bytes }
    }
}
