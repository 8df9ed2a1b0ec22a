//! Claims about normal form: rows A1 to A6 and A8 to A10 of the threat table, as far as no route is needed.

use super::*;

fn normal(raw: &str) -> String {
    let path = NormalizedPath::parse(raw).unwrap_or_else(|bad| panic!("{raw}: {bad}"));
    assert_eq!(path.is_changed(), path.as_str() != raw, "{raw}");
    path.as_str().to_owned()
}

fn refusal(raw: &str) -> BadPath {
    match NormalizedPath::parse(raw) {
        Ok(path) => panic!("{raw} was read as {}", path.as_str()),
        Err(bad) => bad,
    }
}

#[test]
fn a_plain_path_is_borrowed_as_it_is() {
    for raw in
        ["/", "/v1/orders", "/v1/orders/", "/a/b.c/~x", "/@scope/name:x+y,(z)='!$&*", "/A/b;v=1", "/a\"<>[]^`{|}"]
    {
        let path = NormalizedPath::parse(raw).unwrap();
        assert!(matches!(path.text, Cow::Borrowed(_)), "{raw}");
        assert_eq!((path.as_str(), path.is_changed()), (raw, false));
    }
}

#[test]
fn a_path_that_only_looks_odd_is_borrowed_too() {
    for raw in ["/.well-known/x", "/a/..b", "/a/...", "/a%20b", "/%C3%A9", "/a//b", "//", "/a%2Fb", "/%2525"] {
        let path = NormalizedPath::parse(raw).unwrap();
        assert!(matches!(path.text, Cow::Borrowed(_)), "{raw}");
    }
}

#[test]
fn a1_dot_segments_are_resolved() {
    let cases = [
        ("/public/../admin", "/admin"),
        ("/a/./b", "/a/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/../", "/a/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/./", "/"),
        ("/a/..", "/"),
        ("/a/b/c/../../d", "/a/d"),
        ("/a/...", "/a/..."),
    ];
    for (raw, expected) in cases {
        assert_eq!(normal(raw), expected, "{raw}");
    }
}

#[test]
fn a1_the_root_is_never_left() {
    for raw in ["/..", "/../", "/../a", "/a/../..", "/%2e%2e/a", "/./..", "/a/../../b"] {
        assert_eq!(refusal(raw), BadPath::AboveRoot, "{raw}");
    }
}

#[test]
fn a2_encoded_dots_are_dots() {
    for raw in
        ["/public/%2e%2e/admin", "/public/.%2e/admin", "/public/%2E./admin", "/%61dmin", "/a%64min", "/%2e/admin"]
    {
        assert_eq!(normal(raw), "/admin", "{raw}");
    }
}

#[test]
fn a2_unreserved_characters_are_decoded_and_other_escapes_put_in_upper_case() {
    assert_eq!(normal("/%41%7a%30%2d%2E%5f%7E"), "/Az0-._~");
    assert_eq!(normal("/%3a%2f%c3%a9"), "/%3A%2F%C3%A9");
}

#[test]
fn a3_backslashes_are_refused_however_they_are_written() {
    for raw in ["/a\\b", "/a%5Cb", "/a%5cb", "/..%5c..", "\\a"] {
        let expected = if raw.starts_with('/') { BadPath::Backslash } else { BadPath::NotAbsolute };
        assert_eq!(refusal(raw), expected, "{raw}");
    }
}

#[test]
fn a3_an_encoded_slash_stays_in_its_segment_and_is_marked() {
    let path = NormalizedPath::parse("/a/b%2fc/../d%2Fe").unwrap();
    assert_eq!(path.as_str(), "/a/d%2Fe");
    assert!(path.marks().intersects(Marks::ENCODED_SLASH));
    assert!(!NormalizedPath::parse("/a%252Fb").unwrap().marks().intersects(Marks::ENCODED_SLASH));
}

#[test]
fn a4_empty_segments_stay_and_are_marked() {
    for raw in ["//", "//a", "/a//", "/a//b", "/a/.//b"] {
        assert!(NormalizedPath::parse(raw).unwrap().marks().intersects(Marks::EMPTY_SEGMENT), "{raw}");
    }
}

#[test]
fn a4_a_trailing_slash_is_no_empty_segment() {
    for raw in ["/", "/a/", "/a/b/", "/a/.", "/a/b/.."] {
        assert!(!NormalizedPath::parse(raw).unwrap().marks().intersects(Marks::EMPTY_SEGMENT), "{raw}");
    }
}

#[test]
fn a4_going_up_from_an_empty_segment_has_no_single_reading() {
    for raw in ["/a//../b", "/a//%2e%2e/b", "//..", "/a//b/../../c"] {
        assert_eq!(refusal(raw), BadPath::ParentOfEmptySegment, "{raw}");
    }
    assert_eq!(normal("/a//b/../c"), "/a//c");
}

#[test]
fn a5_dots_with_parameters_are_refused() {
    for raw in
        ["/..;/admin", "/a/..;x=1/b", "/.;/a", "/%2e%2e;/a", "/a/..%3B/b", "/...;x", "/..%2fadmin", "/.%20", "/..%252f"]
    {
        assert_eq!(refusal(raw), BadPath::DotsWithSuffix, "{raw}");
    }
    assert_eq!(normal("/.a;x/..a%20"), "/.a;x/..a%20");
}

#[test]
fn a5_a_segment_of_parameters_alone_is_refused() {
    for raw in ["/;a", "/a/;/b", "/a/;", "/;x/../b", "//;"] {
        assert_eq!(refusal(raw), BadPath::OnlyParameters, "{raw}");
    }
}

#[test]
fn a6_what_is_no_escape_or_no_utf8_is_refused() {
    for raw in ["/%", "/a%2", "/%zz", "/%u002e", "/%2g", "/100%/x"] {
        assert_eq!(refusal(raw), BadPath::BrokenEscape, "{raw}");
    }
    // Overlong `.` and `/`, a lone continuation, half a character, a surrogate, beyond U+10FFFF.
    for raw in
        ["/%c0%ae", "/%c0%af", "/%e0%80%af", "/%80", "/%c3", "/%c3/%a9", "/%c3a%a9", "/%ed%a0%80", "/%f4%90%80%80"]
    {
        assert_eq!(refusal(raw), BadPath::NotUtf8, "{raw}");
    }
}

#[test]
fn a6_control_characters_are_refused() {
    for raw in ["/%00", "/a%0d%0ab", "/%1f", "/%7F", "/%c2%85", "/a\tb", "/\0", "/a\u{7f}"] {
        assert_eq!(refusal(raw), BadPath::ControlCharacter, "{raw:?}");
    }
}

#[test]
fn a6_bytes_outside_visible_ascii_must_be_escaped() {
    for raw in ["/é", "/a b", "/\u{2028}", "/\u{ff0e}\u{ff0e}/a"] {
        assert_eq!(refusal(raw), BadPath::UnescapedByte, "{raw:?}");
    }
}

#[test]
fn a9_fragments_are_refused_and_their_escape_is_data() {
    assert_eq!(refusal("/a#b"), BadPath::Fragment);
    assert_eq!(normal("/a%23b"), "/a%23b");
}

#[test]
fn a10_a_query_is_never_part_of_the_path() {
    assert_eq!(refusal("/a?b"), BadPath::Query);
    assert_eq!(normal("/a%3fb"), "/a%3Fb");
}

#[test]
fn a11_a_path_begins_with_a_slash() {
    for raw in ["", "*", "a", "http://a/b", "%2Fa"] {
        assert_eq!(refusal(raw), BadPath::NotAbsolute, "{raw}");
    }
}

#[test]
fn digits_of_an_escape_are_no_upper_case_letters() {
    assert!(!NormalizedPath::parse("/%C3%A9").unwrap().marks().intersects(Marks::UPPER_CASE));
    assert!(NormalizedPath::parse("/%C3%A9B").unwrap().marks().intersects(Marks::UPPER_CASE));
    assert!(NormalizedPath::parse("/%41").unwrap().marks().intersects(Marks::UPPER_CASE));
}

#[test]
fn normal_form_is_a_fixed_point() {
    for raw in ["/a/%2e%2e/%62//c;d/%2f%C3%a9/.", "/a//b/../c%2541", "/x/./%7E/.."] {
        let once = normal(raw);
        assert_eq!(
            NormalizedPath::parse(&once).unwrap(),
            NormalizedPath { changed: false, ..NormalizedPath::parse(raw).unwrap() }
        );
    }
}
