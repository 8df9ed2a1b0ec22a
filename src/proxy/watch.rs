//! Whether the key that admitted a request still holds, for streams and tunnels that outlive the decision.

use std::rc::Rc;
use std::time::Duration;

use super::live::LiveReader;
use crate::authn::Authenticated;
use crate::domain::clock::deciding_now;
use crate::domain::time;
use crate::gate::{self, Freshness, Keys, Staleness};

/// A key that admitted something long.
#[derive(Clone)]
pub(crate) struct KeyWatch {
    live: Rc<LiveReader>,
    authenticated: Authenticated,
    /// How old the key set may be where it was admitted.
    staleness: Staleness,
}

impl KeyWatch {
    /// Watches `authenticated`.
    pub(super) fn new(live: &Rc<LiveReader>, authenticated: Authenticated, staleness: Staleness) -> Self {
        Self { live: Rc::clone(live), authenticated, staleness }
    }

    /// Whether it still holds, by the rules and keys of this moment.
    pub(crate) fn still_holds(&self) -> bool {
        let current = self.live.current();
        let set = self.live.keys();
        let freshness = set.age(time::monotonic_now()).map_or(Freshness::Unloaded, Freshness::Confirmed);
        let keys = Keys { set, freshness };
        gate::still_holds(&self.authenticated, self.staleness, &current.gate, keys, deciding_now())
    }

    /// How often to ask.
    pub(crate) fn interval(&self) -> Duration {
        self.live.current().gate.rules.settings.recheck_interval
    }
}
