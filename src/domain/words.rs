//! Guessing which known word was meant.

/// Longest text that anybody mistypes, in bytes. Comparing takes time and memory by the product of two lengths.
const LONGEST: usize = 200;

/// Whether `text` is `word` but for one letter: missing, too many, another one, or two in each other's place.
pub fn is_misspelt(text: &str, word: &str) -> bool {
    text.len() <= LONGEST && strsim::damerau_levenshtein(&text.to_lowercase(), &word.to_lowercase()) == 1
}

/// The known word that `text` was probably meant to be: at most a third of its letters differ.
pub fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > LONGEST {
        return None;
    }
    let folded = text.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&folded, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.chars().count().max(folded.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_is_a_misspelling() {
        for text in ["GETT", "GE", "GTE", "get1", "SET"] {
            assert!(is_misspelt(text, "GET"), "{text}");
        }
        for text in ["GET", "get", "PURGE", "GETTER", "", &"G".repeat(1_000)] {
            assert!(!is_misspelt(text, "GET"), "{text}");
        }
    }
}
