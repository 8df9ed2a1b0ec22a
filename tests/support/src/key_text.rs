//! The text of a key as the contract describes it, written a second time so that the tests have an opinion of their
//! own: `<brand>_<environment>_<kind>_<32 base62><6 checksum characters>`, the checksum being CRC-32 (ISO-HDLC) of
//! everything before it in base62, left-padded with `0`.

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// CRC-32 (ISO-HDLC), bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

/// The six checksum characters of `body`.
pub fn checksum(body: &str) -> String {
    let mut rest = crc32(body.as_bytes()) as usize;
    let mut text = [b'0'; 6];
    for place in text.iter_mut().rev() {
        *place = BASE62[rest % 62];
        rest /= 62;
    }
    text.iter().map(|&byte| char::from(byte)).collect()
}

/// A well-formed key that nobody ever created: `<fixed>` and `fill` 32 times, with the right checksum.
pub fn forged(fixed: &str, fill: char) -> String {
    let body: String = fixed.chars().chain(std::iter::repeat_n(fill, 32)).collect();
    let sum = checksum(&body);
    body + &sum
}

/// Whether `text` is a key of this fixed part with a right checksum.
pub fn is_well_formed(text: &str, fixed: &str) -> bool {
    let Some(tail) = text.strip_prefix(fixed) else { return false };
    tail.len() == 38
        && tail.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && checksum(&text[..text.len() - 6]) == text[text.len() - 6..]
}

/// `text` with its last character changed, so that the checksum is wrong.
pub fn mistyped(text: &str) -> String {
    let (body, last) = text.split_at(text.len() - 1);
    format!("{body}{}", if last == "0" { '1' } else { '0' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn forged_keys_are_well_formed_and_mistyped_ones_are_not() {
        let key = forged("pc_live_sk_", 'x');
        assert!(is_well_formed(&key, "pc_live_sk_"));
        assert!(!is_well_formed(&mistyped(&key), "pc_live_sk_"));
        assert!(!is_well_formed(&key, "pc_test_sk_"));
    }
}
