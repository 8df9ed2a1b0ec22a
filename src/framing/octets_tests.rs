//! Laws: what looks at many bytes at once finds what looking at each of them finds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::octets::{Controls, is_authority, is_path_and_query, is_token, is_value, number, token_len};

fn controls(bytes: &[u8], at: usize) -> Vec<usize> {
    let mut controls = Controls::new(bytes, at);
    std::iter::from_fn(|| controls.next()).collect()
}

/// Mostly bytes of one kind, so that long runs and their ends are met.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![20 => prop::sample::select(&b"abzAZ-/.,;09"[..]), 1 => any::<u8>()];
    vec(byte, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_and_paths_end_where_their_first_foreign_byte_is(bytes in bytes()) {
        prop_assert_eq!(token_len(&bytes), bytes.iter().take_while(|&&byte| is_token(byte)).count());
        let path = |byte: u8| byte.is_ascii_graphic() && !b"#<>`".contains(&byte);
        let query = |byte: u8| byte.is_ascii_graphic() && !b"#<>\"".contains(&byte);
        let mark = bytes.iter().position(|&byte| byte == b'?').unwrap_or(bytes.len());
        let expected = bytes[..mark].iter().all(|&byte| path(byte)) && bytes[mark..].iter().all(|&byte| query(byte));
        prop_assert_eq!(is_path_and_query(&bytes), expected);
    }

    #[test]
    fn every_control_byte_is_told_once_and_in_order(bytes in vec(any::<u8>(), 0..300), at in 0_usize..300) {
        let expected: Vec<usize> = (at..bytes.len()).filter(|&at| !is_value(bytes[at])).collect();
        prop_assert_eq!(controls(&bytes, at), expected);
    }
}

#[test]
fn every_byte_alone_is_told_apart() {
    for byte in 0..=255_u8 {
        let is_control = (byte < b' ' && byte != b'\t') || byte == 0x7f;
        assert_eq!(is_value(byte), !is_control, "{byte:#x}");
        for len in [1, 9, 64, 65] {
            let mut bytes = vec![b'a'; len];
            bytes[len - 1] = byte;
            assert_eq!(controls(&bytes, 0).is_empty(), !is_control, "{byte:#x} at {len}");
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(token_len(&bytes) == len, token, "{byte:#x} at {len}");
        }
    }
}

#[test]
fn numbers_are_digits_below_2_to_the_63() {
    for (text, value) in [
        ("0", Some(0)),
        ("0012", Some(12)),
        ("9223372036854775807", Some(i64::MAX.unsigned_abs())),
        ("9223372036854775808", None),
        ("99999999999999999999", None),
        ("", None),
        ("1 ", None),
        ("-1", None),
    ] {
        assert_eq!(number(text.as_bytes()), value, "{text:?}");
    }
}

#[test]
fn an_authority_is_a_host_and_at_most_a_port() {
    for good in ["a", "A-b_c~d.e", "a:0", "a:65535", "127.0.0.1:80", "[::]", "[2001:db8::1]:443", "xn--e1a"] {
        assert!(is_authority(good.as_bytes()), "{good:?}");
    }
    for bad in
        ["", ":1", "a:", "a:65536", "a:123456", "a:1x", "a:1:2", "[", "[]", "[::1", "[::1]1", "[::1%eth0]", "a%41"]
    {
        assert!(!is_authority(bad.as_bytes()), "{bad:?}");
    }
}
