//! Waiting, after a change, until every gateway enforces it.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::console::Console;
use super::failure::Failure;
use super::output::visible;
use super::registry::Registry;
use crate::domain::time::{show_duration, span_of_text};

/// How long, unless it is said, and at most: the same as in the management API.
const USUAL: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// Whether a verb that changes something waits for the fleet.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct WaitArgs {
    /// Wait until every gateway enforces it, and end with 7 where one may not
    #[arg(long)]
    wait_all: bool,
    /// How long at most, up to 60s [default: 10s]
    #[arg(long, value_name = "DURATION", requires = "wait_all", value_parser = patience)]
    timeout: Option<Duration>,
}

impl WaitArgs {
    /// How long; none: not at all.
    pub(super) fn patience(self) -> Option<Duration> {
        self.wait_all.then(|| self.timeout.unwrap_or(USUAL))
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    let span = span_of_text(text).ok().filter(|span| *span <= LONGEST);
    span.ok_or_else(|| format!("write 0 to {}, for example 30s", show_duration(LONGEST)))
}

/// Says how far the fleet is with what was just changed, where that was asked for.
///
/// # Errors
/// [`Failure::Incomplete`] where not every gateway enforces it.
pub(super) fn tell(registry: &dyn Registry, console: &mut Console<'_>) -> Result<(), Failure> {
    match registry.fleet()? {
        Some(fleet) => tell_answer(&fleet, console),
        None => Ok(()),
    }
}

/// Says how far the fleet is, by its answer.
///
/// # Errors
/// As [`tell`].
pub(super) fn tell_answer(fleet: &Value, console: &mut Console<'_>) -> Result<(), Failure> {
    let acknowledged = fleet["acknowledged"].as_array().map_or(0, Vec::len);
    if fleet["complete"] == true {
        let nodes = match acknowledged {
            0 => "there is no gateway that does not enforce it".to_owned(),
            1 => "the one gateway that there is enforces it".to_owned(),
            more => format!("all {more} gateways enforce it"),
        };
        writeln!(console.talk, "{nodes}")?;
        return Ok(());
    }
    Err(Failure::Incomplete(unfinished(fleet, acknowledged)))
}

fn unfinished(fleet: &Value, acknowledged: usize) -> String {
    let pending = fleet["pending"].as_array().map(Vec::as_slice).unwrap_or_default();
    let revision = &fleet["revision"];
    let mut told = format!("it is done (revision {revision}), but not known to be enforced everywhere: ");
    if pending.is_empty() {
        told.push_str("the store does not say which gateways there are");
    } else {
        let written = write!(told, "{acknowledged} acknowledged it, and these did not:");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    for node in pending {
        let text = |name: &str| node[name].as_str().map(visible).unwrap_or_default();
        let until = match node["stops_by"].as_str() {
            Some(moment) => format!("stops deciding without it by {}", visible(moment)),
            None => "may go on without it for ever (`on_stale: serve`, for all of it or for a route)".to_owned(),
        };
        let (name, id, seen) = (text("node"), text("id"), text("last_seen"));
        let written = write!(told, "\n  {name} ({id}): last seen {seen}, {until}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_pending_is_told_by_name_with_the_moment_it_stops() {
        let fleet = json!({
            "revision": 7, "complete": false, "acknowledged": ["a/1"],
            "pending": [
                { "node": "b/2", "id": "node_2", "last_seen": "then", "stops_by": "soon" },
                { "node": "c/3", "id": "node_3", "last_seen": "then", "stops_by": null },
            ],
        });
        let told = unfinished(&fleet, 1);
        for part in ["revision 7", "b/2 (node_2): last seen then, stops deciding without it by soon", "c/3", "for ever"]
        {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        let nobody = unfinished(&json!({ "revision": 7, "complete": false }), 0);
        assert!(nobody.contains("does not say"), "{nobody}");
    }

    #[test]
    fn patience_has_a_bound() {
        assert_eq!(patience("30s"), Ok(Duration::from_secs(30)));
        assert!(patience("61s").is_err() && patience("soon").is_err());
    }
}
