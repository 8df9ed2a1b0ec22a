//! Claims about what servers read; judging it is the table's.

use super::*;

fn readings(text: &str) -> Vec<String> {
    of(text).unwrap().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_path_that_everyone_reads_alike_has_no_other_reading() {
    for text in ["/", "/a/b/", "/caf%C3%A9", "/a%20b", "/100%25", "/a%2Fb", "/A"] {
        assert_eq!(readings(text), [""; 0], "{text}");
    }
}

#[test]
fn each_reading_is_what_its_name_says() {
    for (text, expected) in [
        ("/a;x/b", &["/a/b"][..]),
        ("/a%3Ab", &["/a:b"]),
        ("/a%253Ab", &["/a:b"]),
        ("/a%252Fb", &["/a/b"]),
        ("/a\"b", &["/a%22b"]),
        ("/a%3Fb", &["/a"]),
        ("/a%23b%3Fc", &["/a"]),
        ("/a%253Fb", &["/a%3Fb", "/a"]),
        ("/a%3Bx/b", &["/a;x/b", "/a/b"]),
        ("/a%253Bx/b", &["/a;x/b", "/a/b"]),
        // Whatever is removed first: what is decoded may begin parameters, or end the segment they are in.
        ("/a%3Bb;c", &["/a%3Bb", "/a;b;c", "/a", "/a;b"]),
        ("/a;x%252Fb", &["/a", "/a;x/b", "/a/b"]),
        ("/a%256B%3Bx%252Fy", &["/a%256B;x%252Fy", "/a%256B", "/ak;x/y", "/ak/y", "/ak"]),
        ("/%252525", &["/%2525"]),
    ] {
        assert_eq!(readings(text), expected, "{text}");
    }
}

#[test]
fn a_kept_slash_stays_data_in_every_reading() {
    assert_eq!(readings("/a%2Fb%3A%252Fc"), ["/a%2Fb:%252Fc", "/a%2Fb:/c"]);
    assert_eq!(readings("/a;%2Fb/c"), ["/a/c"]);
}

#[test]
fn control_characters_refuse_a_reading() {
    for text in ["/%2500", "/%250A", "/a%257F"] {
        assert_eq!(of(text), Err(BadPath::ReadDifferently(Reading::DecodedTwice)), "{text}");
    }
}

#[test]
fn folding_is_by_unicode_and_leaves_escapes_whole() {
    for (text, expected) in [
        ("/Users/%2F%3A", "/users/%2F%3A"),
        ("/CAF%C3%89", "/caf%C3%A9"),
        ("/%E2%84%AA%C5%BF", "/ks"),
        ("/%EF%BC%A1%EF%BC%8F%EF%BC%8E", "/a/."),
        ("/%EF%BC%BC", "/%5C"),
        ("/%C3%9F", "/ss"),
        ("/%FF", "/%FF"),
        ("/%C3%A9%2FA%C3%89", "/%C3%A9%2Fa%C3%A9"),
    ] {
        assert_eq!(fold(text), expected, "{text}");
    }
}

#[test]
fn folding_twice_is_folding_once() {
    for c in ('\u{80}'..='\u{2fff}').chain('\u{a000}'..='\u{abff}').chain('\u{f900}'..='\u{ffef}') {
        let text = escape(c.to_string().as_bytes());
        let once = fold(&text);
        assert_eq!(fold(&once), once, "{c:?}");
    }
}

#[test]
fn dots_beside_a_kept_slash_are_found() {
    for text in ["/a%2F..", "/..%2Fa", "/a%2F.%2Fb", "/x/a%2F..;v", "/.%2F"] {
        assert!(hides_dot_segment(text), "{text}");
    }
    for text in ["/a%2Fb", "/a%2F...", "/a%2F..b", "/..", "/a%252F..", "/"] {
        assert!(!hides_dot_segment(text), "{text}");
    }
}
