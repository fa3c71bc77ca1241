//! Ringtribe's own format. All integers are little-endian.

pub mod extension;
