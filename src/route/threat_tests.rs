//! Claims about paths that mean harm: the rows A1 to A14 of the threat table that need a route to decide, and what
//! the readings of a path do.

use super::super::samples::{ask, check, rule, table};
use super::*;

#[test]
fn a7_paths_are_case_sensitive_and_another_case_is_judged_too() {
    let table = table(&["GET /Admin", "GET /{x} to=0", "GET /other/x to=1", "GET /Other/{x}"]);
    check(
        &table,
        &[
            ("GET /Admin", "0"),
            // A server that ignores case would serve route 0: both must agree, whichever case was asked for.
            ("GET /admin", "1+0"),
            ("GET /ADMIN", "1+0"),
            ("GET /public", "1"),
            ("GET /PUBLIC", "1"),
            ("GET /Other/y", "3"),
            ("GET /OTHER/y", "404"),
            ("GET /Other/x", "400 ReadDifferently(Folded)"),
        ],
    );
}

#[test]
fn a7_letters_beyond_ascii_have_cases_and_look_alikes_too() {
    let table = table(&["GET /token to=1", "GET /caf%C3%A9 to=1", "GET /{x}"]);
    for path in ["/to%E2%84%AAen", "/TOKEN", "/%EF%BD%94oken", "/caf%C3%89", "/CAF%c3%a9"] {
        assert_eq!(ask(&table, &format!("GET {path}")), "400 ReadDifferently(Folded)", "{path}");
    }
    check(&table, &[("GET /caf%C3%A9", "1"), ("GET /%E6%97%A5", "2")]);
}

#[test]
fn a8_a_trailing_slash_a_suffix_and_a_space_make_another_path() {
    let table = table(&["GET /a", "GET /b/", "GET /c either", "GET /d/ either"]);
    check(
        &table,
        &[
            ("GET /a/", "404"),
            ("GET /a.json", "404"),
            ("GET /a%20", "404"),
            ("GET /b", "404"),
            ("GET /c/", "2"),
            ("GET /d", "3"),
            ("GET /c//", "400 EmptySegment"),
        ],
    );
}

#[test]
fn a1_a_path_is_matched_and_forwarded_with_its_dots_resolved() {
    let table = table(&["GET /public/**", "GET /admin to=1"]);
    check(
        &table,
        &[
            ("GET /public/../admin", "1 /admin"),
            ("GET /public/%2e%2e/admin", "1 /admin"),
            ("GET /public/x/..", "0 /public/"),
            ("GET /public/..%2fadmin", "400 DotsWithSuffix"),
            ("GET /public/../../admin", "400 AboveRoot"),
        ],
    );
}

#[test]
fn a3_an_encoded_slash_is_refused_unless_the_best_route_keeps_it() {
    let table = table(&["GET /p/{x}", "GET /p/{x}/issues keep", "GET /p/** keep", "GET /q/** keep to=1"]);
    check(
        &table,
        &[
            // Route 2 would keep it, but route 0 is the best for this path.
            ("GET /p/a%2Fb", "400 EncodedSlash"),
            ("GET /p/a%2fb/issues", "1 /p/a%2Fb/issues"),
            ("GET /p/a%2Fb/other/x", "2"),
            ("POST /p/a%2Fb/issues", "405 GET, HEAD"),
            ("POST /p/a%2Fb", "400 EncodedSlash"),
            ("GET /none/a%2Fb", "400 EncodedSlash"),
        ],
    );
}

#[test]
fn a3_a_kept_slash_hides_no_dot_segment() {
    let table = table(&["GET /p/{x} keep", "GET /e/{x} keep exact"]);
    for path in ["/p/a%2F..", "/p/a%2F..%2Fb", "/p/a%2F.;x", "/p/a%2F%252e%252e", "/p/a%2F..%3Bx", "/p/a%2F..%253Bx"] {
        assert!(ask(&table, &format!("GET {path}")).starts_with("400 ReadDifferently"), "{path}");
    }
    check(&table, &[("GET /p/..%2Fa", "400 DotsWithSuffix"), ("GET /p/a%2F..b", "0"), ("GET /e/a%2F..", "1")]);
}

#[test]
fn a3_a_route_that_a_reading_leads_to_must_keep_the_slash_as_well() {
    let table = table(&["GET /p/{x}/{y} keep", "GET /p/k/{y}", "GET /q/{x}/{y} keep", "GET /q/k/{y} keep"]);
    check(
        &table,
        &[
            ("GET /p/K/a%2Fb", "400 ReadDifferently(Folded)"),
            ("GET /p/%256B/a%2Fb", "400 ReadDifferently(DecodedTwice)"),
            ("GET /q/K/a%2Fb", "2+3"),
        ],
    );
}

#[test]
fn a4_empty_segments_are_refused_unless_the_best_route_merges_them() {
    let table = table(&["GET /a/b", "GET /a/** merge", "POST /m merge refuse", "GET /m merge"]);
    check(
        &table,
        &[
            ("GET //a/b", "400 EmptySegment"),
            ("GET /a//b", "400 EmptySegment"),
            ("GET //a///c//", "1 /a/c/"),
            ("PUT /a//c", "405 GET, HEAD"),
            ("PUT /a//b", "400 EmptySegment"),
            ("GET /x//y", "400 EmptySegment"),
            ("GET //m", "3 /m"),
            ("POST //m", "400 NotNormal"),
        ],
    );
}

#[test]
fn a5_parameters_are_part_of_the_path_and_of_none_of_its_other_readings() {
    let table =
        table(&["GET /admin", "GET /{x} to=0", "GET /b/{x}", "GET /b/secret to=1", "GET /e/a;v exact", "GET /n/a;v"]);
    check(
        &table,
        &[
            // Never matched as `/admin`; but some server serves that, so both rules must agree.
            ("GET /admin;x=1", "1+0"),
            ("GET /admin%3Bx", "1+0"),
            ("GET /admin%253Bx", "1+0"),
            ("GET /b/1;x=1", "2"),
            ("GET /b/secret;x", "400 ReadDifferently(WithoutParameters)"),
            ("GET /b/secret%253Bx", "400 ReadDifferently(WithoutParameters)"),
            ("GET /b/1/..;/secret", "400 DotsWithSuffix"),
            ("GET /e/a;v", "4"),
            ("GET /n/a;v", "400 ReadDifferently(WithoutParameters)"),
        ],
    );
}

#[test]
fn a6_double_encoding_is_judged_under_every_reading() {
    let table =
        table(&["GET /public/**", "GET /admin/** to=1", "GET /public/secret", "GET /one/{x}", "GET /e/{x} exact"]);
    check(
        &table,
        &[
            ("GET /public/%252e%252e/admin", "400 ReadDifferently(DecodedTwice)"),
            ("GET /public/%252e%252e%252fadmin", "400 ReadDifferently(DecodedTwice)"),
            ("GET /public/a%252f..%252f..%252fadmin", "400 ReadDifferently(DecodedTwice)"),
            ("GET /public/%2573ecret", "0+2"),
            ("GET /public/x%252Fy", "0"),
            ("GET /one/100%25", "3"),
            ("GET /one/a%252Fb", "400 ReadDifferently(DecodedTwice)"),
            ("GET /one/%2500", "400 ReadDifferently(DecodedTwice)"),
            ("GET /one/%255C", "400 ReadDifferently(DecodedTwice)"),
            ("GET /one/%25FF", "400 ReadDifferently(DecodedTwice)"),
            ("GET /e/%255C", "4"),
        ],
    );
}

#[test]
fn a6_dots_that_decoding_brings_to_light_are_judged_resolved_and_as_they_are() {
    let table =
        table(&["GET /a/{x}", "GET /a/", "GET /a/{x}/{y}", "GET /b/{x}", "GET /b/", "GET /c/{x}", "GET /c/{x}/{y}"]);
    check(
        &table,
        &[
            ("GET /a/k%252F..", "0+1+2"),
            ("GET /b/k%252F..", "400 ReadDifferently(DecodedTwice)"),
            ("GET /c/k%252F..", "400 ReadDifferently(DecodedTwice)"),
        ],
    );
}

#[test]
fn a6_escapes_of_characters_that_need_none_are_judged_decoded_too() {
    let table = table(&[
        "GET /v1/jobs:cancel to=1",
        "GET /v1/{x}",
        "GET /w/jobs:cancel",
        "GET /w/{x}",
        "GET /s/a%20b",
        "GET /q/{x}",
        "GET /q/%22 to=1",
    ]);
    check(
        &table,
        &[
            ("GET /v1/jobs%3Acancel", "400 ReadDifferently(DecodedOnce)"),
            ("GET /w/jobs%3Acancel", "3+2"),
            ("GET /w/a%40b", "3"),
            ("GET /s/a%20b", "4"),
            ("GET /s/a%2520b", "404"),
            ("GET /w/\"%5B", "3"),
            // Nor is a character judged only as it came that should have been escaped.
            ("GET /q/\"", "400 ReadDifferently(DecodedOnce)"),
        ],
    );
}

#[test]
fn a6_full_width_slashes_and_dots_are_judged_as_what_they_look_like() {
    let table = table(&["GET /public/**", "GET /admin to=1", "GET /one/{x}"]);
    check(
        &table,
        &[
            ("GET /public/%EF%BC%8E%EF%BC%8E/%EF%BC%8E./admin", "400 ReadDifferently(Folded)"),
            ("GET /public/%EF%BC%8E%EF%BC%8E/x", "400 ReadDifferently(Folded)"),
            ("GET /one/a%EF%BC%8Fb", "400 ReadDifferently(Folded)"),
            ("GET /one/a%EF%BC%BCb", "400 ReadDifferently(Folded)"),
            ("GET /one/%EF%BC%9F", "2"),
        ],
    );
}

#[test]
fn a9_a_decoded_question_mark_or_number_sign_may_end_the_path() {
    let table = table(&["GET /admin", "GET /{x}", "GET /a/{x}", "GET /b/{x}/c to=1"]);
    check(
        &table,
        &[
            ("GET /admin%3Fx", "1+0"),
            ("GET /admin%23x", "1+0"),
            ("GET /admin%253fx", "1+0"),
            ("GET /a/what%3F", "2"),
            ("GET /b/x%3Fy/c", "400 ReadDifferently(CutAtDelimiter)"),
        ],
    );
}

#[test]
fn a12_the_method_decides_as_it_is_and_unknown_ones_are_refused() {
    let table = table(&["* /a", "GET /b"]);
    check(
        &table,
        &[
            ("get /a", "405 GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            ("TRACE /a", "405 GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            ("PROPFIND /a", "405 GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            ("get /b", "405 GET, HEAD"),
        ],
    );
}

#[test]
fn a13_head_is_judged_as_get_and_options_gets_no_free_pass() {
    let table = table(&["GET /a", "GET,HEAD /b", "POST /c", "* /d", "GET /d"]);
    let found = |request: &str| match NormalizedPath::parse(request) {
        Ok(path) => match table.find("", &Method::HEAD, &path) {
            Lookup::Found(found) => Some(found.rule),
            Lookup::NotFound | Lookup::MethodNotAllowed { .. } | Lookup::BadPath(_) => None,
        },
        Err(_) => None,
    };
    assert_eq!(found("/a"), Some(rule(0, 0)));
    assert_eq!(found("/b"), Some(rule(1, 1)));
    assert_eq!(found("/c"), None);
    assert_eq!(found("/d"), Some(rule(4, 0)));
    check(&table, &[("OPTIONS /a", "405 GET, HEAD"), ("OPTIONS /d", "3"), ("HEAD /c", "405 POST")]);
}

#[test]
fn a14_a_prefix_ends_at_a_segment_border() {
    let table = table(&["GET /public/**"]);
    check(&table, &[("GET /publicity", "404"), ("GET /public.", "404"), ("GET /public%2Fx", "400 EncodedSlash")]);
}

#[test]
fn a_path_whose_folded_reading_has_two_meanings_is_refused() {
    let table = table(&["GET /Users exact", "GET /users exact", "GET /{x}"]);
    check(&table, &[("GET /Users", "0"), ("GET /users", "1"), ("GET /USERS", "400 ReadDifferently(Folded)")]);
}

#[test]
fn a_route_for_an_exact_upstream_is_judged_by_the_path_alone() {
    let table = table(&["GET /a/{x} exact", "GET /a/b to=1", "GET /a/B/c to=1"]);
    check(
        &table,
        &[
            ("GET /a/B", "0"),
            ("GET /a/b;x", "0"),
            ("GET /a/b%253B", "0"),
            ("GET /a/b%3F", "0"),
            ("GET /a/b%2Fc", "400 EncodedSlash"),
            ("GET /a//b", "400 EmptySegment"),
        ],
    );
}

#[test]
fn a_reading_that_has_no_route_or_not_the_method_refuses_the_path() {
    let table = table(&["* /a/{x}", "POST /a/b", "GET /a%25"]);
    check(
        &table,
        &[
            ("GET /a/B", "400 ReadDifferently(Folded)"),
            ("POST /a/B", "0+1"),
            ("GET /a/b%252F", "400 ReadDifferently(DecodedTwice)"),
        ],
    );
}

#[test]
fn every_other_rule_is_named_once() {
    let table = table(&["GET /{x}", "GET /a", "GET /a;b", "GET /A;b/c"]);
    check(&table, &[("GET /A;b", "0+2+1"), ("GET /A%3Bb", "0+2+1"), ("GET /A%3BB;c", "0+1+2")]);
}
