//! The table finds what scoring every rule finds, and refuses exactly the maps that have no one answer.

use std::collections::BTreeSet;

use portcullis::route::{Conflict, Found, Lookup, NormalizedPath, RouteTable, RuleRef};
use proptest::prelude::*;

use super::input::{
    PLAIN, REQUESTS, Request, TRICKY, attack, entries, host, method, peaceful, plain_path, routes, table,
};
use super::oracle::{Answer, Route, answer, clash};
use crate::cases;

fn rule(rule: RuleRef) -> (u32, u16) {
    (rule.route.0, rule.method)
}

pub(super) fn ask(table: &RouteTable, request: &Request) -> Answer {
    let Ok(path) = NormalizedPath::parse(&request.path) else { return Answer::Bad };
    match table.find(request.host, &request.method.parse().unwrap(), &path) {
        Lookup::Found(Found { rule: found, also, path }) => {
            let others: BTreeSet<_> = also.iter().copied().map(rule).collect();
            assert_eq!(others.len(), also.len(), "each rule once");
            Answer::Rule(rule(found), others, path.into_owned())
        }
        Lookup::NotFound => Answer::NotFound,
        Lookup::MethodNotAllowed { allow, .. } => {
            Answer::NotAllowed(allow.methods().iter().map(|method| method.as_str().to_owned()).collect())
        }
        Lookup::BadPath(_) => Answer::Bad,
    }
}

fn clashes(routes: &[Route]) -> bool {
    routes.iter().enumerate().any(|(at, route)| routes[..at].iter().any(|other| clash(other, route)))
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (host(), method(), plain_path()).prop_map(|(host, method, path)| Request { host, method, path });
    prop::collection::vec(request, REQUESTS)
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn the_table_is_the_best_of_all_rules(routes in peaceful(PLAIN), requests in requests()) {
        let table = table(&routes);
        for request in requests {
            prop_assert_eq!(ask(&table, &request), answer(&routes, &request), "{:?}", request);
        }
    }

    #[test]
    fn every_rule_that_matches_is_listed_behind_the_one_that_answers(
        routes in peaceful(PLAIN), requests in requests()
    ) {
        let table = table(&routes);
        let alone: Vec<_> = routes.iter().map(|route| super::input::table(std::slice::from_ref(route))).collect();
        for request in requests {
            let path = NormalizedPath::parse(&request.path).unwrap();
            let listed = table.matching(request.host, &request.method.parse().unwrap(), &path);
            if let Answer::Rule(best, _, _) = ask(&table, &request) {
                prop_assert_eq!(listed.first().copied().map(rule), Some(best));
            }
            for (number, alone) in alone.iter().enumerate() {
                let matches = matches!(ask(alone, &request), Answer::Rule(..));
                let is_listed = listed.iter().any(|rule| rule.route.0 as usize == number);
                prop_assert_eq!(is_listed, matches, "a rule is listed if it would answer, standing alone");
            }
        }
    }

    #[test]
    fn the_order_of_routes_never_matters(attack in attack()) {
        let last = u32::try_from(attack.routes.len() - 1).unwrap();
        let renumber = |(route, method): (u32, u16)| (last - route, method);
        let reversed: Vec<_> = attack.routes.iter().rev().cloned().collect();
        let (forward, backward) = (table(&attack.routes), table(&reversed));
        for request in &attack.requests {
            let backward = match ask(&backward, request) {
                Answer::Rule(rule, also, path) => {
                    Answer::Rule(renumber(rule), also.into_iter().map(renumber).collect(), path)
                }
                other => other,
            };
            prop_assert_eq!(ask(&forward, request), backward);
        }
    }

    #[test]
    fn maps_without_one_answer_are_refused_and_no_others(routes in routes(TRICKY)) {
        match RouteTable::build(entries(&routes)) {
            Ok(_) => prop_assert!(!clashes(&routes)),
            Err(conflicts) => {
                prop_assert!(!conflicts.is_empty());
                for conflict in conflicts {
                    let (first, second) = match conflict {
                        Conflict::Tie { first, second } => (first.route, second.route),
                        Conflict::OnlyCase { first, second } => (first, second),
                        Conflict::TooManyMethods { .. } => return Err(TestCaseError::fail("no route is that large")),
                    };
                    prop_assert!(first < second);
                    prop_assert!(clash(&routes[first.0 as usize], &routes[second.0 as usize]));
                }
            }
        }
    }

    #[test]
    fn a_rule_called_idle_answers_nothing(attack in attack()) {
        let table = table(&attack.routes);
        let idle: Vec<_> = table.idle_rules().into_iter().map(|(idle, _)| rule(idle)).collect();
        for request in &attack.requests {
            if let Answer::Rule(rule, _, _) = ask(&table, request) {
                prop_assert!(!idle.contains(&rule), "{:?} answers {:?}", rule, request);
            }
        }
    }
}
