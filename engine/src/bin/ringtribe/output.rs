//! What the program prints: a line at a time, for people or for programs.

use std::io::Write;

use serde_json::Value;

/// Prints a line.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    // In one write, so that a process that is killed leaves no half line.
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()
}

/// Prints an object as one line.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn object(value: &Value) -> std::io::Result<()> {
    line(&value.to_string())
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that fits, with one digit behind the point: 1.5 MiB.
pub(crate) fn bytes(number: u64) -> String {
    let mut unit_bytes = 1;
    let mut name = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if number / unit_bytes < 1024 {
            break;
        }
        unit_bytes *= 1024;
        name = next;
    }
    let (whole, tenths) = (number / unit_bytes, number % unit_bytes * 10 / unit_bytes);
    if tenths == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenths} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1536, 64 << 20, (1 << 30) + 1].map(bytes),
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "64 MiB", "1 GiB"]
        );
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
