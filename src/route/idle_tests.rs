//! Claims about rules that never answer.

use super::super::bad_path::Reading;
use super::super::samples::{rule, table};
use super::*;

fn idle(routes: &[&str]) -> Vec<(RuleRef, Idle)> {
    table(routes).idle_rules()
}

#[test]
fn rules_that_answer_something_are_not_idle() {
    let routes = [
        "* /**",
        "GET /a/**",
        "GET /a",
        "GET /a/",
        "* /a/{x}",
        "GET,HEAD,* /b either",
        "PURGE *.a.test,b.test/c/{x}/",
        "GET /P/Q",
        "GET /x%20y",
        "GET / merge",
        "GET /k/a%2Fb keep",
        "GET /e/a;b exact",
    ];
    assert_eq!(idle(&routes), []);
}

#[test]
fn a_star_beside_every_method_is_beaten() {
    let routes = ["GET,POST,PUT,PATCH,DELETE,OPTIONS /a", "* /a"];
    assert_eq!(idle(&routes), [(rule(1, 0), Idle::Beaten(rule(0, 0)))]);
}

#[test]
fn a_pattern_that_its_own_rules_refuse_is_idle() {
    assert_eq!(idle(&["GET /a%2Fb"]), [(rule(0, 0), Idle::Refused(BadPath::EncodedSlash))]);
    let refused = Idle::Refused(BadPath::ReadDifferently(Reading::WithoutParameters));
    assert_eq!(idle(&["GET /a;b"]), [(rule(0, 0), refused)]);
}

#[test]
fn a_pattern_whose_readings_lead_to_another_upstream_is_idle() {
    let refused = Idle::Refused(BadPath::ReadDifferently(Reading::WithoutParameters));
    assert_eq!(idle(&["GET /a;b", "GET /a to=1"]), [(rule(0, 0), refused)]);
    assert_eq!(idle(&["GET /a;b", "GET /a"]), []);
    assert_eq!(idle(&["GET /a;b either", "GET /a/", "GET /a to=1"]), []);
}
