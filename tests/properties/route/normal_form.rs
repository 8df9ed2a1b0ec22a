//! Normal form is a fixed point, and is what the contract says, and nothing else gets through.

use portcullis::route::NormalizedPath;
use proptest::prelude::*;

use super::input::hostile_path;
use super::oracle::normal_form;
use crate::cases;

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn normal_form_agrees_with_the_oracle(raw in hostile_path()) {
        let path = NormalizedPath::parse(&raw).ok();
        prop_assert_eq!(path.as_ref().map(|path| path.as_str().to_owned()), normal_form(&raw));
        prop_assert!(path.is_none_or(|path| path.is_changed() == (path.as_str() != raw)));
    }

    #[test]
    fn normal_form_of_any_text_agrees_with_the_oracle(raw in "/?[a-cA-C./;%0-9\\\\#?é\u{0}-\u{20}\u{7f}-\u{a0}]{0,16}") {
        let path = NormalizedPath::parse(&raw).ok();
        prop_assert_eq!(path.map(|path| path.as_str().to_owned()), normal_form(&raw));
    }

    #[test]
    fn normalising_twice_is_normalising_once(raw in hostile_path()) {
        if let Ok(path) = NormalizedPath::parse(&raw) {
            let again = NormalizedPath::parse(path.as_str()).expect("normal form is legal");
            prop_assert_eq!(again.as_str(), path.as_str());
            prop_assert!(!again.is_changed());
        }
    }
}
