//! What another configuration sets otherwise.

use serde_yaml::{Mapping, Value};

use super::effective;
use crate::config::place::push_key;
use crate::config::settings::Settings;

/// Most settings that are named; as a rule there are one or two.
const MOST: usize = 100;

/// The settings that differ, as paths of the effective configuration: `environments.live.rate_limit`. Of routes only those that
/// both have (the same hosts and pattern), by their place among those of `after`, and of these not what they demand. Secrets
/// are not compared.
pub fn changed_settings(before: &Settings, after: &Settings) -> Vec<String> {
    let (Value::Mapping(before), Value::Mapping(after)) = (effective(before), effective(after)) else {
        return Vec::new();
    };
    let mut changes = Changes { path: String::new(), found: Vec::new() };
    changes.between_maps(&before, &after, &["routes"]);
    let routes = |map: &Mapping| map.get("routes").and_then(Value::as_sequence).cloned().unwrap_or_default();
    let follows =
        |route: &Value, all: &Mapping| route.get("accept") == all.get("auth").and_then(|auth| auth.get("accept"));
    let known = routes(&before);
    for (number, route) in routes(&after).iter().enumerate() {
        let is_it = |other: &&Value| other["hosts"] == route["hosts"] && other["path"] == route["path"];
        let Some(known) = known.iter().find(is_it) else { continue };
        let (Value::Mapping(was), Value::Mapping(is)) = (known, route) else { continue };
        changes.path = format!("routes[{number}]");
        // Where both go by what holds for all routes, that was told above.
        let all_tell = follows(known, &before) && follows(route, &after);
        changes.between_maps(was, is, if all_tell { &["methods", "mode", "accept"] } else { &["methods", "mode"] });
    }
    changes.found.truncate(MOST);
    changes.found
}

struct Changes {
    /// Where they are looked for.
    path: String,
    found: Vec<String>,
}

impl Changes {
    fn between(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Mapping(before), Value::Mapping(after)) => self.between_maps(before, after, &[]),
            _ if before != after => self.found.push(self.path.clone()),
            _ => {}
        }
    }

    fn between_maps(&mut self, before: &Mapping, after: &Mapping, but: &[&str]) {
        let length = self.path.len();
        let gone = before.iter().filter(|(key, _)| !after.contains_key(key));
        for (key, _) in after.iter().chain(gone) {
            let name = key.as_str().unwrap_or_default();
            if but.contains(&name) {
                continue;
            }
            push_key(&mut self.path, name);
            let nothing = Value::Null;
            let (before, after) = (before.get(key).unwrap_or(&nothing), after.get(key).unwrap_or(&nothing));
            self.between(before, after);
            self.path.truncate(length);
        }
    }
}
