//! Claims about what a rule beat.

use super::super::samples::table;
use super::*;

fn matching(routes: &[&str], method: Method, host: &str, path: &str) -> Vec<u32> {
    let path = NormalizedPath::parse(path).unwrap();
    table(routes).matching(host, &method, &path).into_iter().map(|rule| rule.route.0).collect()
}

#[test]
fn every_matching_rule_is_listed_best_first() {
    let routes =
        ["* /**", "GET /a/{x}", "GET *.test/a/**", "GET a.test/a/b", "GET /a/b", "* /a/b", "GET /a/c", "POST /a/b"];
    assert_eq!(matching(&routes, Method::GET, "a.test", "/a/b"), [3, 2, 4, 5, 1, 0]);
    assert_eq!(matching(&routes, Method::HEAD, "", "/a/b"), [4, 5, 1, 0]);
    assert_eq!(matching(&routes, Method::POST, "", "/a/b"), [7, 5, 0]);
    assert_eq!(matching(&routes, Method::TRACE, "", "/a/b"), [0; 0]);
}

#[test]
fn what_wider_rules_would_have_said_is_listed_for_a_405_too() {
    assert_eq!(matching(&["GET /a", "* /**"], Method::POST, "", "/a"), [1]);
}

#[test]
fn slashes_count_as_they_do_for_the_table() {
    let routes = ["GET /a either", "GET /a/", "GET /a/**", "GET /a/b merge"];
    assert_eq!(matching(&routes, Method::GET, "", "/a/"), [1, 0, 2]);
    assert_eq!(matching(&routes, Method::GET, "", "/a"), [0, 2]);
    assert_eq!(matching(&routes, Method::GET, "", "//a//b"), [3, 2]);
}
