//! Descriptors: as many as there can be, and some that no client gets.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;
use crate::proxy::USUAL_CONNECTIONS;
use crate::server::{Limits, OPERATORS_SOCKETS};
use crate::wire::{open_sockets, set_room_for_sockets};

/// Kept for listeners, files, event queues and the store where nobody counts them.
const USUAL_FILES: usize = 96;

/// Fewer sockets than this are always let in, whatever the limit says: a gateway without any serves nobody.
const FEWEST: usize = 16;

/// Connections that are enough for whoever did not say how many there may be.
const A_GOOD_MANY: usize = 8_192;

/// How often the limit is looked at: it may be changed from outside (`prlimit(1)`).
const LOOK: Duration = Duration::from_millis(500);

/// Raises the soft limit of open descriptors to the hard one: it is low for the sake of programs that use `select(2)`.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open descriptors stays where it is");
    }
}

/// Says so when the configuration allows for more sockets than there can be.
pub(super) fn warn_if_few(settings: &Settings) {
    let clients = settings.listeners.len().saturating_mul(settings.limits.connections_per_listener);
    let upstreams =
        settings.upstreams.iter().map(|upstream| upstream.targets.len().saturating_mul(upstream.max_connections));
    let wanted = upstreams.fold(clients, usize::saturating_add);
    let room = room(limit(), USUAL_FILES);
    if wanted <= room {
        return;
    }
    // Where nobody asked for so many there is nothing to be mended as long as there are a good many.
    if room >= A_GOOD_MANY && !asks_for_many(settings) {
        return tracing::info!(
            wanted,
            room,
            "there are descriptors for fewer connections than the configuration allows for"
        );
    }
    tracing::warn!(
        wanted,
        room,
        "the configuration allows for more connections than there are descriptors: clients beyond are answered 503; raise \
         the hard limit (`LimitNOFILE` of systemd, `ulimit -Hn`), or lower `limits.connections_per_listener`"
    );
}

/// Whether somebody wrote how many connections there may be.
fn asks_for_many(settings: &Settings) -> bool {
    settings.limits.connections_per_listener != Limits::default().connections_per_listener
        || settings.upstreams.iter().any(|upstream| upstream.max_connections > USUAL_CONNECTIONS)
}

/// Keeps room for operators, for the store and for files, for as long as it runs. Begins with what is open now.
pub(super) async fn keep_room() {
    let files = open_descriptors().map_or(USUAL_FILES, |open| open.saturating_sub(open_sockets()));
    let mut interval = tokio::time::interval(LOOK);
    let mut known = None;
    loop {
        interval.tick().await;
        let limit = limit();
        if known.replace(limit) != Some(limit) {
            let room = room(limit, files);
            set_room_for_sockets(room);
            tracing::debug!(limit, room, "room for connections");
        }
    }
}

fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// What is left of a limit for sockets of clients and upstreams.
fn room(limit: usize, files: usize) -> usize {
    let operators = OPERATORS_SOCKETS.min(limit / 4);
    limit.saturating_sub(files).saturating_sub(operators).max(FEWEST)
}

/// How many descriptors this process has open; none where nobody says.
fn open_descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}
