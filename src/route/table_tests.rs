//! Claims about look-ups: precedence of hosts, paths and methods, `path_rules`, and row A15 of the threat table.

use super::super::samples::{ask, check, conflicts, route, rule, table};
use super::*;

#[test]
fn text_beats_parameter_beats_rest_segment_by_segment() {
    let table = table(&["GET /**", "GET /a/**", "GET /a/{x}", "GET /a/b", "GET /{x}/b", "GET /a/b/**", "GET /a/{x}/c"]);
    check(
        &table,
        &[
            ("GET /a/b", "3"),
            ("GET /a/z", "2"),
            ("GET /z/b", "4"),
            ("GET /a/z/z", "1"),
            ("GET /a/b/z", "5"),
            ("GET /a", "1"),
            ("GET /z", "0"),
            ("GET /", "0"),
            // The second segment decides before the third is looked at.
            ("GET /a/b/c", "5"),
            ("GET /a/z/c", "6"),
        ],
    );
}

#[test]
fn precedence_does_not_depend_on_order() {
    let routes = ["GET /**", "GET /a/**", "GET /a/{x}", "GET /a/b", "GET /{x}/b", "GET a.test/**", "GET *.test/a/b"];
    let requests = ["GET /a/b", "GET /a/z", "GET /z/b", "GET /z", "GET a.test/a/b", "GET b.test/a/b", "GET b.test/a"];
    let forward = table(&routes);
    let reversed: Vec<_> = routes.iter().rev().copied().collect();
    let backward = table(&reversed);
    for request in requests {
        let answer: usize = ask(&forward, request).parse().unwrap();
        let other: usize = ask(&backward, request).parse().unwrap();
        assert_eq!(routes[answer], reversed[other], "{request}");
    }
}

#[test]
fn a_dead_end_falls_back_to_the_next_best_pattern() {
    let table = table(&["GET /a/b/c", "GET /a/{x}/d", "GET /{x}/b/e", "GET /a/**"]);
    check(
        &table,
        &[("GET /a/b/c", "0"), ("GET /a/b/d", "1"), ("GET /a/b/e", "3"), ("GET /z/b/e", "2"), ("GET /z/b/c", "404")],
    );
}

#[test]
fn rest_covers_the_path_itself_its_slash_and_everything_below() {
    let table = table(&["GET /v1/orders/**"]);
    check(
        &table,
        &[
            ("GET /v1/orders", "0"),
            ("GET /v1/orders/", "0"),
            ("GET /v1/orders/1", "0"),
            ("GET /v1/orders/1/items/", "0"),
            ("GET /v1", "404"),
        ],
    );
}

#[test]
fn a_parameter_takes_exactly_one_segment() {
    let table = table(&["GET /a/{x}", "GET /b/*/c"]);
    check(
        &table,
        &[("GET /a/1", "0"), ("GET /a/", "404"), ("GET /a", "404"), ("GET /a/1/2", "404"), ("GET /b/1/c", "1")],
    );
}

#[test]
fn hosts_go_from_exact_over_the_longest_wildcard_to_any() {
    let table =
        table(&["GET /**", "GET *.test/**", "GET *.b.test/**", "GET a.b.test/**", "GET [::1]/**", "GET *.test/only"]);
    check(
        &table,
        &[
            ("GET a.b.test/x", "3"),
            ("GET c.b.test/x", "2"),
            ("GET d.c.b.test/x", "2"),
            ("GET b.test/x", "1"),
            ("GET test/x", "0"),
            ("GET else/x", "0"),
            ("GET A.B.Test:8080/x", "3"),
            ("GET a.b.test./x", "3"),
            ("GET [0:0::1]:443/x", "4"),
            ("GET /x", "0"),
            // The best host that has the path at all, then the best path there.
            ("GET a.b.test/only", "3"),
        ],
    );
}

#[test]
fn a_host_without_the_path_leaves_it_to_wider_hosts() {
    let table = table(&["GET a.b.test/one", "GET *.b.test/two", "GET *.test/three", "GET /four"]);
    check(
        &table,
        &[
            ("GET a.b.test/one", "0"),
            ("GET a.b.test/two", "1"),
            ("GET a.b.test/three", "2"),
            ("GET a.b.test/four", "3"),
            ("GET a.b.test/five", "404"),
            ("GET c.test/two", "404"),
        ],
    );
}

#[test]
fn what_is_no_host_finds_nothing() {
    let table = table(&["GET /**"]);
    for host in ["user@a.test", "a.test,b.test", "a..test", ".a.test", "a.test:x", "a%2etest", "[::1", "a/b"] {
        let path = NormalizedPath::parse("/x").unwrap();
        assert_eq!(table.find(host, &Method::GET, &path), Lookup::NotFound, "{host}");
    }
}

#[test]
fn routes_with_the_same_host_and_path_add_up_their_methods() {
    let table = table(&["GET /a/{x}", "POST,DELETE /a/{y}", "PURGE /a/*"]);
    check(
        &table,
        &[
            ("GET /a/1", "0"),
            ("POST /a/1", "1"),
            ("PURGE /a/1", "2"),
            ("PUT /a/1", "405 GET, HEAD, POST, DELETE, PURGE"),
        ],
    );
}

#[test]
fn a_method_missing_at_the_best_path_is_405_and_never_falls_through() {
    let table = table(&["GET /a", "* /**", "POST a.test/a"]);
    check(
        &table,
        &[("POST /a", "405 GET, HEAD"), ("GET a.test/a", "405 POST"), ("POST /b", "1"), ("POST a.test/b", "1")],
    );
}

#[test]
fn a_pattern_for_the_very_ending_comes_before_one_that_takes_either() {
    let table = table(&["GET /a either", "POST /a/", "* /a/**"]);
    check(
        &table,
        &[("GET /a", "0"), ("GET /a/", "405 POST"), ("POST /a", "405 GET, HEAD"), ("POST /a/", "1"), ("PUT /a/x", "2")],
    );
    let table = super::super::samples::table(&["GET /a either", "* /a/**"]);
    check(&table, &[("GET /a/", "0"), ("POST /a/", "405 GET, HEAD"), ("POST /a/b", "1")]);
}

#[test]
fn a_route_may_refuse_what_is_not_in_normal_form() {
    let table = table(&["GET /a/** refuse"]);
    check(
        &table,
        &[
            ("GET /a/b", "0"),
            ("GET /a/./b", "400 NotNormal"),
            ("GET /a/%62", "400 NotNormal"),
            ("GET /a/%c3%a9", "400 NotNormal"),
            ("GET /a/%C3%A9", "0"),
            ("GET /b/../a/b", "400 NotNormal"),
        ],
    );
}

#[test]
fn a15_two_rules_for_the_same_requests_tie() {
    let tie = |first, second| Conflict::Tie { first, second };
    assert_eq!(conflicts(&["GET /a/{x}", "GET /a/*"]), [tie(rule(0, 0), rule(1, 0))]);
    assert_eq!(conflicts(&["GET,POST /a", "PUT,POST /a"]), [tie(rule(0, 1), rule(1, 1))]);
    assert_eq!(conflicts(&["GET,POST,GET /a"]), [tie(rule(0, 0), rule(0, 2))]);
    assert_eq!(conflicts(&["*,ALL /a"]), [tie(rule(0, 0), rule(0, 1))]);
    assert_eq!(conflicts(&["GET a.test/a", "GET A.TEST./a"]), [tie(rule(0, 0), rule(1, 0))]);
    assert_eq!(conflicts(&["GET a.test,b.test/a", "GET b.test,a.test/a"]), [tie(rule(0, 0), rule(1, 0))]);
    assert_eq!(conflicts(&["GET /a", "GET /a", "GET /a"]), [tie(rule(0, 0), rule(1, 0)), tie(rule(0, 0), rule(2, 0))]);
}

#[test]
fn a15_what_differs_in_host_ending_or_selector_does_not_tie() {
    for routes in [
        ["GET /a", "GET /a/"],
        ["GET /a", "GET /a/**"],
        ["GET /a", "* /a"],
        ["GET /a", "HEAD /a"],
        ["GET a.test/a", "GET *.test/a"],
        ["GET /a either", "GET /a/ either"],
        ["GET a.test,A.test/a", "POST /a"],
    ] {
        assert_eq!(conflicts(&routes), [], "{routes:?}");
    }
}

#[test]
fn a15_patterns_that_differ_only_in_case_are_an_error_unless_both_upstreams_read_exactly() {
    let only_case = |first, second| [Conflict::OnlyCase { first: RouteIx(first), second: RouteIx(second) }];
    assert_eq!(conflicts(&["GET /Users", "POST /users"]), only_case(0, 1));
    assert_eq!(conflicts(&["GET /Users/{x}", "GET /users/{y} exact"]), only_case(0, 1));
    assert_eq!(conflicts(&["GET /caf%C3%A9", "GET /caf%C3%89"]), only_case(0, 1));
    assert_eq!(conflicts(&["GET /A exact", "POST /A", "GET /a exact"]), only_case(1, 2));
    assert_eq!(conflicts(&["GET /Users exact", "GET /users exact"]), []);
    assert_eq!(conflicts(&["GET a.test/Users", "GET b.test/users"]), []);
    assert_eq!(conflicts(&["GET /Users", "GET /users/"]), []);
}

#[test]
fn a_route_has_at_most_65535_methods() {
    let mut entry = route(7, "GET /a");
    entry.methods = vec![entry.methods[0].clone(); 65_536];
    assert_eq!(RouteTable::build(vec![entry]).err(), Some(vec![Conflict::TooManyMethods { route: RouteIx(7) }]));
}

#[test]
fn a_wide_node_finds_each_of_its_children() {
    let routes: Vec<String> = (0..1_000).map(|n| format!("GET /r{n}/{{id}}")).collect();
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let table = table(&routes);
    for n in 0..1_000 {
        assert_eq!(ask(&table, &format!("GET /r{n}/x")), n.to_string());
    }
    assert_eq!(ask(&table, "GET /r1000/x"), "404");
}
