//! Nothing is allowed that any reading of the path denies.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::input::{Attack, Request, attack, table};
use super::oracle::{Answer, Case, Level, Reading, answer, normal_form};
use super::precedence::ask;
use super::symbols::{as_sent, cut, decoded, decoded_again, folded, without_parameters};
use crate::cases;

/// The six ways of the threat model, each by itself; every one is looked up with its dots resolved and as they are.
fn six_ways(path: &str) -> Option<Vec<Reading>> {
    let sent = as_sent(path);
    let once = decoded(&sent);
    let twice = decoded_again(&once)?;
    let reading = |symbols, level, case| Reading { symbols, level, case };
    Some(vec![
        reading(sent.clone(), Level::AsSent, Case::Kept),
        reading(once.clone(), Level::Decoded, Case::Kept),
        reading(twice, Level::Decoded, Case::Kept),
        reading(without_parameters(&sent), Level::AsSent, Case::Kept),
        reading(folded(&sent), Level::AsSent, Case::Folded),
        reading(cut(&once), Level::Decoded, Case::Kept),
    ])
}

/// Every one of the six readings of what is forwarded leads to a rule that was judged, and to the same upstream.
pub(super) fn check_six_ways(attack: &Attack, request: &Request, answered: Answer) -> Result<(), TestCaseError> {
    let Attack { routes, .. } = attack;
    let Answer::Rule(rule, also, forwarded) = answered else { return Ok(()) };
    prop_assert_eq!(normal_form(&forwarded), Some(forwarded.clone()), "what is forwarded is what was judged");
    let route = &routes[rule.0 as usize];
    if route.exact {
        return Ok(());
    }
    let judged: BTreeSet<_> = also.into_iter().chain([rule]).collect();
    let readings = six_ways(&forwarded);
    prop_assert!(readings.is_some(), "{} is no text once decoded twice", forwarded);
    for reading in readings.into_iter().flatten() {
        let rules = reading.rules(routes, request.host, request.method);
        prop_assert!(rules.is_some(), "{:?} is refused", reading.symbols);
        for rule in rules.into_iter().flatten() {
            prop_assert!(judged.contains(&rule), "{:?} leads to {:?}", reading.symbols, rule);
            prop_assert_eq!(routes[rule.0 as usize].upstream, route.upstream);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn nothing_is_allowed_that_one_of_six_readings_denies(attack in attack()) {
        let table = table(&attack.routes);
        for request in &attack.requests {
            check_six_ways(&attack, request, ask(&table, request))?;
        }
    }

    #[test]
    fn the_readings_are_those_of_the_definition(attack in attack()) {
        let table = table(&attack.routes);
        for request in &attack.requests {
            prop_assert_eq!(ask(&table, request), answer(&attack.routes, request), "{:?}", request);
        }
    }
}
