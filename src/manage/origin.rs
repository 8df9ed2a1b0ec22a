//! Web origins as browsers send them.

/// Longest origin that is kept, in bytes.
const MAX_BYTES: usize = 255;

/// An origin as browsers send it (RFC 6454 §6.2): scheme, host and, where it is not the scheme's own, port.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn check_origin(text: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("{text:?} {why}; browsers send origins like https://app.example.com"));
    if text.len() > MAX_BYTES {
        return refuse("is too long");
    }
    let Some((scheme, host)) = text.split_once("://") else { return refuse("has no scheme") };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        // Browser extensions and apps have schemes of their own.
        scheme if is_scheme(scheme) => "",
        _ => return refuse("has no scheme that browsers write"),
    };
    if host.is_empty() {
        return refuse("names no host");
    }
    if host.contains(['/', '?', '#', '@', '*', ' ', '\\']) {
        return refuse("is more than scheme, host and port");
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()) {
        return refuse("is not in lower-case ASCII");
    }
    if !default_port.is_empty() && host.ends_with(default_port) {
        return refuse("names the scheme's own port, which browsers leave out");
    }
    Ok(())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_send() {
        for origin in ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "moz-extension://ab-1"]
        {
            assert_eq!(check_origin(origin), Ok(()), "{origin}");
        }
        for (origin, says) in [
            ("app.example.com", "no scheme"),
            ("*", "no scheme"),
            ("https://", "no host"),
            ("https://app.example.com/", "more than"),
            ("https://*.example.com", "more than"),
            ("https://App.example.com", "lower-case"),
            ("https://app.example.com:443", "own port"),
            ("HTTPS://app.example.com", "no scheme that"),
        ] {
            let problem = check_origin(origin).unwrap_err();
            assert!(problem.contains(says), "{origin}: {problem}");
        }
    }
}
