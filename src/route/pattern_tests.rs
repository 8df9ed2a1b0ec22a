//! Claims about path patterns: row A15 of the threat table.

use super::*;

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn text_parameters_and_a_final_rest_are_understood() {
    let text = |text: &str| Segment::Text(text.to_owned());
    for (given, segments, tail) in [
        ("/", vec![], Tail::End),
        ("/**", vec![], Tail::Rest),
        ("/a", vec![text("a")], Tail::End),
        ("/a/", vec![text("a")], Tail::Slash),
        ("/a/{id}/*/b/**", vec![text("a"), Segment::Param, Segment::Param, text("b")], Tail::Rest),
        ("/{order-id}/{x_1}", vec![Segment::Param, Segment::Param], Tail::End),
        ("/.well-known/..x", vec![text(".well-known"), text("..x")], Tail::End),
    ] {
        let pattern = pattern(given);
        assert_eq!((pattern.as_str(), pattern.segments(), pattern.tail()), (given, &segments[..], tail));
    }
}

#[test]
fn every_path_character_of_rfc_3986_is_legal() {
    pattern("/a:b/@c/d+e,f=g/(h)!$i'/j;k=l/&m/~n-_.o");
    pattern("/a%20b/caf%C3%A9/100%25/a%2Fb/%3Fx/%5Bx%5D/%22");
}

#[test]
fn a15_what_is_not_canonical_is_an_error_with_its_place_and_a_fix() {
    for (text, at, fix) in [
        ("", 0..0, "write `/`"),
        ("v1/a", 0..4, "write `/v1/a`"),
        ("/a//b", 3..3, "write one slash"),
        ("//", 1..1, "write one slash"),
        ("/a/../b", 3..5, "write the path they stand for"),
        ("/a/.", 3..4, "write the path they stand for"),
        ("/a/%62", 3..6, "write `b`"),
        ("/a/%2e%2e", 3..6, "write `.`"),
        ("/x%3ay", 2..5, "write `:`"),
        ("/x%2By", 2..5, "write `+`"),
        ("/caf%c3%a9", 4..7, "write `%C3`"),
        ("/café", 4..6, "write `%C3%A9`"),
        ("/a b", 2..3, "write `%20`"),
        ("/a[0]", 2..3, "write `%5B`"),
        ("/a\\b", 2..3, "write `/` between segments"),
        ("/a%5Cb", 2..5, "write `/` between segments; paths with backslashes are refused"),
        ("/a%00", 2..5, "remove it; paths with control characters are refused"),
        ("/a\u{1}", 2..3, "remove the character"),
        ("/%C2%85", 1..7, "remove the character"),
        ("/%C3", 1..4, "percent-encode the text's UTF-8 bytes"),
        ("/%C3é", 4..6, "write `%C3%A9`"),
        ("/100%", 4..5, "write two hexadecimal digits behind it, or `%25` for a percent sign"),
        ("/a?b=c", 2..3, "write the path alone"),
        ("/a#b", 2..3, "write the path alone"),
        ("/a/;v", 3..5, "remove the route, or write another segment"),
        ("/a/..;v", 3..7, "remove the route, or write another segment"),
        ("/.%20", 1..5, "remove the route, or write another segment"),
    ] {
        let error = PathPattern::parse(text).expect_err(text);
        assert_eq!((error.at.clone(), error.fix.as_str()), (at, fix), "{text}: {error}");
    }
}

#[test]
fn other_pattern_languages_are_answered_with_ours() {
    for (text, at, fix) in [
        ("/a/**/b", 3..5, "use `*` or `{param}` for one segment"),
        ("/a/**/", 3..5, "use `*` or `{param}` for one segment"),
        ("/a/b*", 3..5, "write `/*/` or `/{param}/` for one segment, a final `/**` for the rest"),
        ("/a/{id}.json", 3..12, "write `/{param}/`; text beside a parameter is not supported"),
        ("/a/{id", 3..6, "write `/{param}/`; text beside a parameter is not supported"),
        ("/{}", 1..3, "write `*`, or a name between the braces"),
        ("/{*rest}", 1..8, "write a final `**` for the rest of the path"),
        ("/{rest...}", 1..10, "write a final `**` for the rest of the path"),
        ("/{id:[0-9]+}", 1..12, "leave out what stands behind the colon: a parameter takes any one segment"),
        ("/{a b}", 1..6, "use letters, digits, `_` and `-`"),
    ] {
        let error = PathPattern::parse(text).expect_err(text);
        assert_eq!((error.at.clone(), error.fix.as_str()), (at, fix), "{text}: {error}");
    }
}

#[test]
fn a_pattern_has_a_longest_length() {
    pattern(&format!("/{}", "a".repeat(MAX_PATTERN_BYTES - 1)));
    let error = PathPattern::parse(&format!("/{}", "a".repeat(MAX_PATTERN_BYTES))).unwrap_err();
    assert_eq!(error.at, 0..MAX_PATTERN_BYTES + 1);
}

#[test]
fn names_of_parameters_tell_nothing_apart() {
    assert!(pattern("/a/{x}/**").ties_with(&pattern("/a/*/**")));
    assert!(!pattern("/a/{x}").ties_with(&pattern("/a/{x}/")));
    assert!(!pattern("/a/{x}").ties_with(&pattern("/a/x")));
}

#[test]
fn covering_is_by_segment() {
    for (wide, narrow) in [
        ("/**", "/"),
        ("/**", "/a/{x}/**"),
        ("/a/**", "/a"),
        ("/a/**", "/a/"),
        ("/a/**", "/a/**"),
        ("/{x}/**", "/a/b"),
        ("/{x}", "/a"),
        ("/a/{x}/", "/a/b/"),
    ] {
        assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
    }
    for (wide, narrow) in
        [("/a/**", "/ab"), ("/a", "/a/"), ("/a", "/{x}"), ("/a/{x}", "/a/**"), ("/a/b/**", "/a/**"), ("/{x}", "/")]
    {
        assert!(!pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
    }
}
