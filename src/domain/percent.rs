//! Percent encoding of the parts of URLs (RFC 3986 §2.1).

/// Why a text has no decoded form. Repeats none of it: it may be a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotEncoded {
    /// A percent sign without two hexadecimal digits behind it.
    Broken,
    /// What it stands for is not UTF-8.
    NotUtf8,
    /// What it stands for holds a NUL.
    Nul,
}

/// Undoes percent encoding. A `+` is a plus.
///
/// # Errors
/// When it stands for no text that could be meant.
pub fn percent_decoded(text: &str) -> Result<String, NotEncoded> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(NotEncoded::Broken);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    let text = String::from_utf8(bytes).map_err(|_| NotEncoded::NotUtf8)?;
    if text.contains('\0') { Err(NotEncoded::Nul) } else { Ok(text) }
}

/// A text as it may stand in any part of a URL: everything but unreserved characters (RFC 3986 §2.3) is encoded.
pub fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let encoded =
        text.bytes().map(|byte| if is_plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_stands_for_no_text_is_refused() {
        for (text, why) in [
            ("%", NotEncoded::Broken),
            ("a%2", NotEncoded::Broken),
            ("%zz", NotEncoded::Broken),
            ("%+1", NotEncoded::Broken),
            ("%ff", NotEncoded::NotUtf8),
            ("a%00", NotEncoded::Nul),
        ] {
            assert_eq!(percent_decoded(text), Err(why), "{text}");
        }
        assert_eq!(percent_decoded("a+%2F%e2%82%AC"), Ok("a+/€".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_plain_and_decoded_again(text in "[^\\x00]{0,40}") {
            let encoded = percent_encoded(&text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            prop_assert_eq!(percent_decoded(&encoded), Ok(text));
        }
    }
}
