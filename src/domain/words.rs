//! Guessing which known word was meant.

/// Longest text that anybody mistypes, in bytes. Comparing takes time and memory by the product of two lengths.
const LONGEST: usize = 200;

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
