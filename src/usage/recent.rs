//! What a worker noted a moment ago, as it came, before it is entered beside the keys.
//!
//! With many keys in use the note of each is in no cache. Entered one by one, in the middle of their requests, each is waited
//! for alone, some 150 ns; entered one after the other with nothing in between, the processor waits for many at once.

use super::tally::Counted;
use super::visit::{MAX_AGENT_BYTES, Visitor};
use crate::domain::{KeyId, Timestamp};

/// So many are entered together. That takes some microseconds, and until then they lie in the cache that is nearest.
const TOGETHER: usize = 64;

const _: () = assert!(TOGETHER * MAX_AGENT_BYTES <= u16::MAX as usize, "every text has a place");

/// One thing that a worker noted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// Somebody came with a key.
    Visit(Visitor<'a>),
    /// A key was accepted.
    Use(KeyId, Timestamp),
    /// Requests of one kind were answered.
    Count(Counted, u32),
}

impl Event<'_> {
    fn key(&self) -> KeyId {
        match self {
            Self::Visit(visitor) => visitor.key,
            Self::Use(key, _) => *key,
            Self::Count(counted, _) => counted.key,
        }
    }

    /// How many notes it is, and how many moments of last use.
    pub(super) fn weight(&self) -> (u64, u64) {
        match self {
            Self::Visit(visitor) => (1, visitor.is_accepted.into()),
            Self::Use(..) => (0, 1),
            Self::Count(..) => (1, 0),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    /// Without what visitors call themselves, which stands among the texts.
    events: Vec<(Event<'static>, Text)>,
    /// Visitors in a row that call themselves the same share it.
    texts: Vec<u8>,
}

/// A place among the texts.
#[derive(Clone, Copy, Default)]
struct Text {
    from: u16,
    to: u16,
}

impl Recent {
    /// Whether there is room for no more.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= TOGETHER
    }

    /// Appends one.
    pub(super) fn push(&mut self, event: Event<'_>) {
        let last = self.events.last().map_or_else(Text::default, |(_, text)| *text);
        let kept = match event {
            Event::Visit(visitor) => {
                let Visitor { key, kind, address, agent: _, is_browser_leak, is_accepted, at } = visitor;
                let kept = Visitor { key, kind, address, agent: None, is_browser_leak, is_accepted, at };
                (Event::Visit(kept), self.text(visitor.kept_agent(), last))
            }
            Event::Use(key, at) => (Event::Use(key, at), last),
            Event::Count(counted, requests) => (Event::Count(counted, requests), last),
        };
        self.events.push(kept);
    }

    /// Whose they are.
    pub(super) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.events.iter().map(|(event, _)| event.key())
    }

    /// All of them as they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        self.events.iter().map(|(event, text)| match event {
            Event::Visit(visitor) => Event::Visit(Visitor { agent: Some(self.said(*text)), ..*visitor }),
            other => *other,
        })
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.texts.clear();
    }

    fn said(&self, text: Text) -> &[u8] {
        self.texts.get(text.from.into()..text.to.into()).unwrap_or_default()
    }

    /// The place of what a visitor says; that of the last, if it said the same.
    fn text(&mut self, said: &[u8], last: Text) -> Text {
        if self.said(last) == said {
            return last;
        }
        let from = self.texts.len();
        self.texts.extend_from_slice(said);
        // There are no more texts than that has room for.
        let place = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        Text { from: place(from), to: place(self.texts.len()) }
    }
}

#[cfg(test)]
#[path = "recent_tests.rs"]
mod tests;
