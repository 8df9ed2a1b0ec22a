//! A request that waits for what other nodes have to say of its limits, before anything of it was decided.

use tokio::time::timeout_at;

use super::asked::{Asked, ClientBody};
use super::engine::{Context, Step};
use super::observed::Exchange;
use crate::domain::time::monotonic_now;
use crate::limit::Awaited;

/// See the module. Everything that is borrowed from where the request arrived is left there: it is judged again.
pub(crate) struct Waiting {
    cx: Context,
    exchange: Exchange,
    body: ClientBody,
    awaited: Option<Awaited>,
}

impl Waiting {
    pub(super) fn new(mut cx: Context, exchange: Exchange, body: ClientBody, awaited: Awaited) -> Box<Self> {
        let patience = cx.engine.meters.sharing().map(crate::limit::Sharing::patience).unwrap_or_default();
        // However often it has to ask again, it waits no longer than once.
        cx.waits_until.get_or_insert_with(|| monotonic_now() + patience);
        Box::new(Self { cx, exchange, body, awaited: Some(awaited) })
    }

    /// Returns when there is an answer, or there was none in time.
    pub(crate) async fn over(&mut self) {
        let Some(awaited) = self.awaited.take() else { return };
        let meters = &self.cx.engine.meters;
        let until = self.cx.waits_until.unwrap_or_else(monotonic_now);
        if timeout_at(until.into(), meters.answer(awaited)).await.is_err() {
            meters.waited_in_vain();
            // Timers are coarse: by the clock it may not be over yet.
            self.cx.waits_until = Some(until.min(monotonic_now()));
        }
    }

    /// Judges the request again, which is the one that was judged before; its body is kept here.
    pub(crate) fn resume(self: Box<Self>, asked: Asked<'_>) -> Step {
        let Self { cx, exchange, body, awaited: _ } = *self;
        cx.step(Asked { body, ..asked }, exchange)
    }
}
