//! Claims about text from outside.

use std::borrow::Cow;

use proptest::prelude::*;

use super::visible::{is_harmful, visible};

#[test]
fn harmless_text_is_borrowed_unchanged() {
    for text in ["", "plain", "Grüße, 世界", "tabs-no \"quotes\" yes"] {
        assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
    }
}

#[test]
fn characters_that_move_cursors_or_turn_text_are_escaped() {
    for (text, escaped) in [
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("\u{1b}[31m", r"\u{1b}[31m"),
        ("\0\u{7f}", r"\u{0}\u{7f}"),
        ("\u{85}\u{9b}", r"\u{85}\u{9b}"),
        ("\u{2028}\u{2029}", r"\u{2028}\u{2029}"),
        ("user\u{202e}nimda", r"user\u{202e}nimda"),
        (r"C:\n", r"C:\\n"),
    ] {
        assert_eq!(visible(text), escaped);
    }
}

#[test]
fn an_escape_typed_by_hand_differs_from_the_character_it_names() {
    let harmful: Vec<char> = ('\0'..=char::MAX).filter(|c| is_harmful(*c)).collect();
    assert!(harmful.len() > 65, "C0, DEL and C1 alone are 65");
    for c in harmful {
        let character = c.to_string();
        let typed_by_hand = visible(&character).into_owned();
        assert_ne!(visible(&typed_by_hand), visible(&character), "{c:?}");
    }
}

proptest! {
    #[test]
    fn visible_text_never_steers_a_terminal(characters in prop::collection::vec(any::<char>(), 0..40)) {
        let text = String::from_iter(characters);
        prop_assert!(!visible(&text).contains(is_harmful));
    }
}
