//! Rooms know only the rooms below them: every `crate::…` path in `src` is held to the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which rooms a room may know, besides `domain`, which everybody may. Siblings of a tier do not see each other.
enum May {
    /// Exactly these.
    Know(&'static [&'static str]),
    /// Every room of a lower tier.
    KnowLower,
}
use May::{Know, KnowLower};

/// The rooms, lowest first: (tier, room, what it may know).
const TABLE: &[(u8, &str, May)] = &[
    (0, "domain", Know(&[])),
    (0, "table", Know(&[])),
    (1, "route", Know(&[])),
    (1, "credential", Know(&[])),
    (1, "limit", Know(&["table"])),
    (1, "store", Know(&[])),
    (1, "telemetry", Know(&[])),
    (1, "framing", Know(&[])),
    (2, "lending", Know(&["limit"])),
    (2, "wire", Know(&["framing"])),
    (2, "cache", Know(&["table", "store", "telemetry"])),
    (2, "authn", Know(&["credential", "cache"])),
    (2, "authz", Know(&["route", "authn"])),
    (3, "gate", Know(&["route", "credential", "cache", "authn", "authz", "limit"])),
    (4, "manage", Know(&["store", "gate"])),
    (4, "audit", Know(&["store"])),
    (4, "usage", Know(&["route", "store", "telemetry", "cache", "gate"])),
    // Challenges name the schemes a route accepts.
    (4, "reply", Know(&["gate", "credential"])),
    // It shows decisions: with the words of refusals, about keys that are looked up or named, today and a moment ago.
    (4, "explain", Know(&["route", "store", "telemetry", "cache", "authn", "gate", "manage", "reply"])),
    (5, "proxy", KnowLower),
    (5, "admin", KnowLower),
    (6, "server", KnowLower),
    (7, "config", KnowLower),
    (8, "app", KnowLower),
    (9, "cli", KnowLower),
];

#[test]
fn rooms_know_only_the_rooms_below_them() {
    let mut offences = Vec::new();
    for (file, room) in sources() {
        for (line, known) in crate_paths(&std::fs::read_to_string(&file).unwrap()) {
            if known != room && !may_know(&room, &known) {
                offences.push(format!("{}:{line}: `{room}` must not know `{known}`", file.display()));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// The thread behind it hands revocations over: whoever else asks it for something delays them.
#[test]
fn nobody_but_the_sync_task_asks_the_feed() {
    let users: Vec<String> = sources()
        .into_iter()
        .filter(|(file, _)| std::fs::read_to_string(file).unwrap().contains(".feed()"))
        .map(|(file, _)| file.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    // Where the task is made, and its stand-in of the tests.
    assert_eq!(BTreeSet::from_iter(users.iter().map(String::as_str)), BTreeSet::from(["run.rs", "fixtures.rs"]));
}

#[test]
fn every_room_is_in_the_table() {
    let known: BTreeSet<&str> = TABLE.iter().map(|(_, room, _)| *room).collect();
    let strangers: BTreeSet<String> =
        sources().into_iter().map(|(_, room)| room).filter(|room| !known.contains(room.as_str())).collect();
    assert!(strangers.is_empty(), "give these rooms a tier: {strangers:?}");
}

#[test]
fn the_table_has_no_way_up() {
    let tiers: BTreeMap<&str, u8> = TABLE.iter().map(|(tier, room, _)| (*room, *tier)).collect();
    for (tier, room, may) in TABLE {
        if let Know(rooms) = may {
            for known in *rooms {
                // `authn` and `authz` stand on siblings of their tier; nothing stands on what stands on it.
                assert!(tiers[known] <= *tier && !may_know(known, room), "{room} -> {known}");
            }
        }
    }
}

#[test]
fn paths_are_found_in_every_spelling() {
    let text = "use crate::store::KeyReader;\nuse crate::{domain::Scope, gate::{self, judge}};\n\
                fn f() -> crate::proxy::Pool { x }\n// crate::cli\n/// [`crate::app`]\npub(in crate::server) fn g() {}\n";
    let found: Vec<_> = crate_paths(text).into_iter().map(|(line, room)| format!("{line}{room}")).collect();
    assert_eq!(found, ["1store", "2domain", "2gate", "3proxy", "6server"]);
}

fn may_know(room: &str, known: &str) -> bool {
    let entry = |name: &str| TABLE.iter().find(|(_, room, _)| *room == name);
    match (entry(room), entry(known)) {
        _ if known == "domain" => true,
        (Some((_, _, Know(rooms))), _) => rooms.contains(&known),
        (Some((tier, _, KnowLower)), Some((below, _, _))) => below < tier,
        // What is no room, an item of the crate's root for example, is nobody's business here.
        (_, None) => true,
        (None, _) => false,
    }
}

/// Every file of a room that is not a test, with the room.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![src.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            if path.is_dir() {
                if name != "tests" {
                    open.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") && name != "tests.rs" {
                let below = path.strip_prefix(&src).unwrap();
                let room = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
                if room != "lib" && room != "main" {
                    found.push((path, room));
                }
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

/// The rooms named by `crate::…` paths in code, with their lines. Comments do not count.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            let own = at == 0 || !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !own {
                continue;
            }
            let rest = &code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                None => found.push((number + 1, name(rest))),
                Some(group) => {
                    let start = text.lines().take(number).map(|line| line.len() + 1).sum::<usize>();
                    let whole = &text[start + at + "crate::{".len()..];
                    debug_assert!(whole.starts_with(group));
                    found.extend(group_names(whole).into_iter().map(|name| (number + 1, name)));
                }
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of a braced group, up to its closing brace.
fn group_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut at_start) = (0, true);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return names,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                names.push(name(&text[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}
