//! The usual ways in which a text that looks right is not YAML, and what to write instead.

use super::place::Position;

/// A recognised mistake.
pub(crate) struct Trap {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) fix: String,
}

/// Looks for a usual mistake around the place of a syntax error: on its line, on the one before, and for tabs on the
/// one after, where a value that goes on was expected.
pub(crate) fn recognise(text: &str, at: Position) -> Option<Trap> {
    let line_of = |line: u32| Some((text.split('\n').nth((line as usize).checked_sub(1)?)?, line));
    let here = [at.line, at.line.saturating_sub(1)].into_iter().filter_map(line_of);
    let found = here.into_iter().find_map(|(shown, line)| {
        let traps = [tab, star, brace, percent_or_at, missing_space, second_colon];
        traps.into_iter().find_map(|trap| trap(shown, line))
    });
    found.or_else(|| line_of(at.line + 1).and_then(|(shown, line)| tab(shown, line)))
}

/// What the parser's words for a syntax error come down to, and what to do; `None` when they are clear enough.
pub(crate) fn explain(info: &str) -> Option<(&'static str, &'static str)> {
    let says = |part: &str| info.contains(part);
    if says("did not find expected '-' indicator") || says("did not find expected key") {
        Some(("the indentation of this line fits nothing above it", "Align it with the lines it belongs to"))
    } else if says("mapping values are not allowed") {
        Some(("a `key: value` cannot begin here", "Check the indentation, and put text that holds `: ` in quotes"))
    } else if says("expected ',' or ']'") {
        Some(("a `[` is not closed before this", "Add `]` where the list ends"))
    } else if says("expected ',' or '}'") {
        Some(("a `{` is not closed before this", "Add `}` where the map ends"))
    } else if says("quoted scalar") && says("end of stream") {
        Some(("this quote is never closed", "Close it on the same line"))
    } else if says("recursion limit") {
        Some(("too many maps and lists inside each other", "No setting is that deep"))
    } else if says("unprintable") {
        Some(("this character cannot stand in YAML", "Remove it, or write it as \\xNN in double quotes"))
    } else {
        None
    }
}

/// Whether a line looks as if it held a secret; used only where there is no tree to ask.
pub(crate) fn may_hold_secret(text: &str, line: u32) -> bool {
    names_a_secret(text.split('\n').nth(line as usize - 1).unwrap_or_default())
}

/// Whether the name of a field says that its value is a secret.
pub(crate) fn names_a_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = ["secret", "password", "token", "authorization", "-key", "apikey"];
    let name = name.to_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

fn trap_at(line: u32, index: usize, message: impl Into<String>, fix: impl Into<String>) -> Trap {
    let column = u32::try_from(index + 1).unwrap_or(u32::MAX);
    Trap { at: Position { line, column }, message: message.into(), fix: fix.into() }
}

/// A tab in the indentation.
fn tab(shown: &str, line: u32) -> Option<Trap> {
    let indent = shown.chars().take_while(|c| c.is_whitespace());
    let index = indent.into_iter().position(|c| c == '\t')?;
    Some(trap_at(line, index, "a tab cannot indent YAML", "Use spaces"))
}

/// `*.example.com` without quotes.
fn star(shown: &str, line: u32) -> Option<Trap> {
    let word = unquoted_words(shown).find(|word| word.text.starts_with('*') && word.text.len() > 1)?;
    let (index, word) = (word.index, word.text.trim_end_matches(':'));
    Some(trap_at(
        line,
        index,
        format!("`{word}` begins with `*`, which makes it a YAML alias"),
        format!("Put it in quotes: \"{word}\""),
    ))
}

/// `{id}` without quotes inside a flow map or list.
fn brace(shown: &str, line: u32) -> Option<Trap> {
    let word = unquoted_words(shown).find(|word| word.in_flow && word.text.contains('/') && word.text.contains('{'))?;
    Some(trap_at(
        line,
        word.index,
        format!("the braces in `{}` begin a map, because it stands inside `{{…}}` or `[…]` without quotes", word.text),
        format!("Put it in quotes: \"{}\"", word.text),
    ))
}

/// A value that begins with a character YAML keeps for itself.
fn percent_or_at(shown: &str, line: u32) -> Option<Trap> {
    let word = unquoted_words(shown).find(|word| word.text.starts_with(['@', '`', '%']))?;
    let (index, word) = (word.index, word.text);
    let first = word.chars().next().unwrap_or_default();
    Some(trap_at(line, index, format!("a value cannot begin with `{first}`"), format!("Put it in quotes: \"{word}\"")))
}

/// `key:value` without the space.
fn missing_space(shown: &str, line: u32) -> Option<Trap> {
    let content = shown.trim_start().trim_start_matches("- ");
    let (key, value) = content.split_once(':')?;
    let is_word = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_word || value.is_empty() || value.starts_with([' ', '/', '\r']) {
        return None;
    }
    let index = shown.chars().count() - content.chars().count() + key.chars().count();
    Some(trap_at(line, index, "a space is missing after `:`", format!("Write `{key}: {value}`")))
}

/// `key: text: more` without quotes.
fn second_colon(shown: &str, line: u32) -> Option<Trap> {
    let content = shown.trim_start().trim_start_matches("- ");
    let (key, value) = content.split_once(": ")?;
    let value = value.trim();
    let is_plain = !key.contains(['"', '\'', '{', '[']) && !value.starts_with(['"', '\'', '{', '[', '|', '>']);
    if !is_plain || !(value.contains(": ") || value.ends_with(':')) {
        return None;
    }
    let index = shown.chars().count() - content.chars().count() + key.chars().count() + 2;
    let message = format!("`{value}` holds a `:` followed by a space, which begins a map");
    Some(trap_at(line, index, message, format!("Put it in quotes: {value:?}")))
}

/// A word outside quotes and comments.
struct Word {
    /// Of its first character.
    index: usize,
    text: String,
    /// Whether a `{` or `[` on the same line is open around it.
    in_flow: bool,
}

/// Words outside quotes and comments. A `{` inside a word belongs to it, as in `/v1/{id}`.
fn unquoted_words(shown: &str) -> impl Iterator<Item = Word> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut depth = 0usize;
    let mut word: Option<Word> = None;
    for (index, c) in shown.chars().enumerate() {
        let inside = word.as_ref().is_some_and(|word| word.text.matches('{').count() > word.text.matches('}').count());
        match (quote, c) {
            (Some(open), _) => {
                if c == open {
                    quote = None;
                }
            }
            (None, '#') if word.is_none() => break,
            (None, '"' | '\'') if word.is_none() => quote = Some(c),
            (None, ' ' | '\t' | ',' | '\r') => words.extend(word.take()),
            (None, '[' | '{') if word.is_none() => depth += 1,
            (None, ']' | '}') if !inside => {
                words.extend(word.take());
                depth = depth.saturating_sub(1);
            }
            (None, _) => {
                let word = word.get_or_insert_with(|| Word { index, text: String::new(), in_flow: depth > 0 });
                word.text.push(c);
            }
        }
    }
    words.extend(word);
    words.into_iter()
}
