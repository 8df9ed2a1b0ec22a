//! One entry of a ring: what is kept of a request, in memory that is used again.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::Version;

use super::{Noted, Remembered};
use crate::domain::redact::{path_without_keys, without_keys};
use crate::domain::{KeyId, OwnerId, Timestamp};
use crate::telemetry::access::protocol_name;
use crate::telemetry::metrics::DecisionMode;

/// Longest path that is kept, in bytes.
pub(super) const MAX_PATH: usize = 512;
/// Longest other text that is kept, in bytes.
const MAX_TEXT: usize = 255;
/// Room for the texts of a usual request, in bytes.
const USUAL_TEXTS: usize = 192;

/// The texts of an entry, in the order in which they stand.
#[derive(Clone, Copy)]
enum Text {
    Id,
    Listener,
    Method,
    Host,
    Path,
    Route,
    File,
    /// Scopes, between spaces (RFC 6749 §3.3 allows none within).
    Missing,
    /// The last, as it may be said later.
    Environment,
}

const TEXTS: usize = 9;

/// What is kept of one request.
pub(super) struct Entry {
    ts: Timestamp,
    pub(super) duration: Duration,
    /// 0 while the answer is under way.
    pub(super) status: u16,
    is_whole: bool,
    line: u32,
    protocol: Version,
    pub(super) code: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
    mode: Option<DecisionMode>,
    key_id: Option<KeyId>,
    owner: Option<OwnerId>,
    client_ip: Option<IpAddr>,
    /// Where each text ends.
    ends: [u16; TEXTS],
    /// All texts, one behind the other: one allocation, used again by whatever stands here next.
    pub(super) texts: String,
}

impl Entry {
    /// Before anything is written to it.
    pub(super) const fn empty() -> Self {
        Self {
            ts: Timestamp::from_unix_ms(0),
            duration: Duration::ZERO,
            status: 0,
            is_whole: false,
            line: 0,
            protocol: Version::HTTP_11,
            code: None,
            reason: None,
            mode: None,
            key_id: None,
            owner: None,
            client_ip: None,
            ends: [0; TEXTS],
            texts: String::new(),
        }
    }

    /// Keeps a request in place of what was there.
    pub(super) fn write(&mut self, noted: &Noted<'_>) {
        self.ts = noted.ts;
        self.duration = Duration::ZERO;
        self.status = 0;
        self.protocol = noted.protocol;
        self.code = noted.code;
        self.reason = noted.reason;
        self.mode = noted.mode;
        self.key_id = noted.key_id;
        self.owner = noted.owner;
        self.client_ip = noted.client_ip;
        let (file, line) = noted.rule.unwrap_or_default();
        self.line = line;
        self.texts.clear();
        // What most requests need, in one piece.
        self.texts.reserve(USUAL_TEXTS);
        let (host, path) = (noted.host.unwrap_or_default(), noted.path.unwrap_or_default());
        let (kept_host, kept_path) = (kept(host), cut(path_without_keys(path), MAX_PATH));
        self.is_whole = noted.path.is_some() && *kept_host == *host && *kept_path == *path;
        self.push(Text::Id, &kept(noted.request_id));
        self.push(Text::Listener, noted.listener);
        self.push(Text::Method, noted.method);
        self.push(Text::Host, &kept_host);
        self.push(Text::Path, &kept_path);
        self.push(Text::Route, noted.route.unwrap_or_default());
        self.push(Text::File, file);
        let start = self.texts.len();
        for scope in noted.missing_scopes {
            let gap = usize::from(self.texts.len() > start);
            // A scope that does not fit is left out whole: half a name is another one.
            if self.texts.len() - start + gap + scope.as_str().len() <= MAX_TEXT {
                self.texts.push_str(&" "[..gap]);
                self.texts.push_str(scope.as_str());
            }
        }
        self.close(Text::Missing);
        self.push(Text::Environment, noted.environment.unwrap_or_default());
    }

    /// Adds the key.
    pub(super) fn came_with(&mut self, key_id: KeyId, owner: Option<OwnerId>, environment: Option<&str>) {
        (self.key_id, self.owner) = (Some(key_id), owner);
        self.texts.truncate(usize::from(self.ends[Text::Missing as usize]));
        self.push(Text::Environment, environment.unwrap_or_default());
    }

    fn push(&mut self, which: Text, text: &str) {
        let most = if matches!(which, Text::Path) { MAX_PATH } else { MAX_TEXT };
        self.texts.push_str(&text[..text.floor_char_boundary(most)]);
        self.close(which);
    }

    fn close(&mut self, which: Text) {
        // The bounds of all texts together are far below what 16 bits count.
        self.ends[which as usize] = u16::try_from(self.texts.len()).unwrap_or(u16::MAX);
    }

    /// The id, as it is kept.
    pub(super) fn id(&self) -> &str {
        self.text(Text::Id)
    }

    fn text(&self, which: Text) -> &str {
        let at = which as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        self.texts.get(usize::from(start)..usize::from(self.ends[at])).unwrap_or_default()
    }

    /// What is kept, for somebody who asks.
    pub(super) fn read(&self) -> Remembered {
        let text = |which| self.text(which).to_owned();
        let some = |which| Some(text(which)).filter(|text| !text.is_empty());
        let has_ended = self.status != 0;
        Remembered {
            ts: self.ts,
            request_id: text(Text::Id),
            listener: text(Text::Listener),
            protocol: protocol_name(self.protocol),
            method: some(Text::Method),
            host: some(Text::Host),
            path: some(Text::Path),
            is_whole: self.is_whole,
            route: some(Text::Route),
            rule: some(Text::File).map(|file| (file, self.line)),
            status: has_ended.then_some(self.status),
            code: self.code,
            reason: self.reason,
            missing_scopes: self.text(Text::Missing).split_terminator(' ').map(str::to_owned).collect(),
            mode: self.mode.map(DecisionMode::text),
            key_id: self.key_id,
            owner: self.owner,
            environment: some(Text::Environment),
            client_ip: self.client_ip,
            duration: has_ended.then_some(self.duration),
        }
    }
}

/// What is kept of a text from outside.
pub(super) fn kept(text: &str) -> Cow<'_, str> {
    cut(without_keys(text), MAX_TEXT)
}

fn cut(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..text.floor_char_boundary(most)]),
        Cow::Owned(mut text) => {
            text.truncate(text.floor_char_boundary(most));
            Cow::Owned(text)
        }
    }
}
