//! Claims about hosts and their patterns.

use super::*;

fn read(authority: &str) -> Option<String> {
    HostName::read(authority).map(|host| String::from_utf8(host.as_bytes().to_vec()).unwrap())
}

#[test]
fn ports_case_and_a_trailing_dot_tell_no_hosts_apart() {
    for (authority, host) in [
        ("api.test", "api.test"),
        ("API.Test:8080", "api.test"),
        ("api.test.", "api.test"),
        ("api.test.:443", "api.test"),
        ("api.test:", "api.test"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("my_service", "my_service"),
        ("", ""),
    ] {
        assert_eq!(read(authority).as_deref(), Some(host), "{authority}");
    }
}

#[test]
fn an_ipv6_address_has_one_spelling() {
    for authority in ["[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]", "[::0001]:"] {
        assert_eq!(read(authority).as_deref(), Some("[::1]"), "{authority}");
    }
    assert_eq!(read("[2001:DB8::A]").as_deref(), Some("[2001:db8::a]"));
}

#[test]
fn what_is_no_host_is_read_as_none() {
    for authority in [
        "a@b.test",
        "a,b",
        "a b",
        "a/b",
        "a%2eb",
        "a..b",
        ".a",
        ".",
        "a:b",
        "a:80:80",
        ":80",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:x",
        "[fe80::1%25eth0]",
        "[a]",
        "é.test",
        "a\\b",
        "a;b",
    ] {
        assert_eq!(read(authority), None, "{authority}");
    }
}

#[test]
fn patterns_fit_exactly_or_below_their_suffix() {
    let fit = |pattern: &str, host: &str| HostPattern::parse(pattern).unwrap().fit(&HostName::read(host).unwrap());
    assert_eq!(fit("API.test", "api.TEST:1"), Some(HostFit::Exact));
    assert_eq!(fit("*.Example.com", "a.b.EXAMPLE.com"), Some(HostFit::Below(12)));
    assert_eq!(fit("*.example.com", "example.com"), None);
    assert_eq!(fit("*.example.com", "badexample.com"), None);
    assert_eq!(fit("[0::1]", "[::1]:443"), Some(HostFit::Exact));
    assert_eq!(fit("api.test", ""), None);
}

#[test]
fn covering_follows_names() {
    let covers =
        |wide: &str, narrow: &str| HostPattern::parse(wide).unwrap().covers(&HostPattern::parse(narrow).unwrap());
    assert!(covers("*.test", "a.test"));
    assert!(covers("*.test", "*.a.test"));
    assert!(covers("*.test", "*.TEST"));
    assert!(covers("a.test", "A.test."));
    assert!(!covers("*.test", "test"));
    assert!(!covers("*.a.test", "*.test"));
    assert!(!covers("a.test", "*.test"));
}

#[test]
fn what_could_never_match_is_an_error_with_its_place_and_a_fix() {
    for (text, at, fix) in [
        ("", 0..0, "leave `hosts` out to answer for every host"),
        ("*", 0..1, "leave `hosts` out to answer for every host"),
        ("https://api.test/v1", 0..8, "write `api.test`"),
        ("api.test/v1", 8..11, "write `api.test`, and the path in `path`"),
        ("api.test:8080", 8..13, "write `api.test`: the port of a request is not compared"),
        ("*.api.test:80", 10..13, "write `*.api.test`: the port of a request is not compared"),
        ("[::1]:80", 5..8, "write `[::1]`: the port of a request is not compared"),
        ("bücher.test", 1..3, "write the name in its ASCII form, which begins with `xn--` (RFC 5890)"),
        ("api.*.test", 4..5, "write `*.example.com` for every name below example.com"),
        ("*a.test", 0..1, "write `*.example.com` for every name below example.com"),
        ("*.*.test", 2..3, "write `*.example.com` for every name below example.com"),
        ("::1", 0..3, "write an IPv6 address in brackets, as in `[::1]`, without `*.` and zone"),
        ("*.[::1]", 0..7, "write an IPv6 address in brackets, as in `[::1]`, without `*.` and zone"),
        ("a..test", 0..7, "use letters, digits, `-`, `_` and single dots, as in `api.example.com`"),
        ("*.", 0..2, "use letters, digits, `-`, `_` and single dots, as in `api.example.com`"),
        ("a b", 0..3, "use letters, digits, `-`, `_` and single dots, as in `api.example.com`"),
    ] {
        let error = HostPattern::parse(text).expect_err(text);
        assert_eq!((error.at.clone(), error.fix.as_str()), (at, fix), "{text}: {error}");
    }
}
