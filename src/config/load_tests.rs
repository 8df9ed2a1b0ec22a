use std::path::Path;

use super::{load, load_text};
use crate::config::samples::{findings, loaded, no_environment, with, with_routes};
use crate::config::{Code, Colour, json, sarif, text};
use crate::gate::{Demand, MethodSelector, Mode};

#[test]
fn the_smallest_useful_file_loads_without_a_word() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.yaml");
    let loaded = load(&path, &no_environment);
    assert_eq!(loaded.diagnostics, []);
    let settings = loaded.settings.expect("a file without findings gives settings");
    let rules: Vec<_> = settings.gate.routes.iter().flat_map(|route| &route.methods).collect();
    assert_eq!(rules.len(), 3);
    assert_eq!(rules[0].selector, MethodSelector::Named(http::Method::GET));
    let scopes = |name: &str| Demand::Scopes { all: vec![name.parse().unwrap()], any: Vec::new() };
    assert_eq!(rules[0].demand, scopes("read:orders"));
    assert_eq!(rules[1].demand, scopes("write:orders"));
    assert_eq!(rules[2].demand, Demand::Public);
    assert_eq!(rules[1].source.to_string(), format!("{}:15:7", path.display()));
}

#[test]
fn all_problems_of_a_file_are_found_in_one_go() {
    let text = with_routes(
        "  - path: /a\n    upsteam: app\n    auth: none\n  - path: /b\n    upstream: nope\n    scopes: a b\n    max_body: big\n  \
         - path: /c\n    upstream: app\n",
    ) + "limits: { head_size: 1, head_fields: x }\nverison: 1\n";
    let said = findings(&text);
    let places = ["7:5 ", "11:13 ", "12:15 ", "13:5 ", "15:22 ", "15:38 ", "16:1 "];
    for place in places {
        assert!(
            said.iter().any(|line| line.starts_with(&format!("p.yaml:{place}"))),
            "{place} in\n{}",
            said.join("\n")
        );
    }
    assert_eq!(said.len(), places.len(), "{}", said.join("\n"));
}

#[test]
fn one_mistake_is_reported_once() {
    for (text, count) in [
        // The upstream exists, though it is broken: routes to it are not undefined.
        (with("").replace("kind: echo", "kind: eco"), 1),
        // A misspelt name is unknown, not also missing.
        (with("").replace("upstream: app", "upstraem: app"), 1),
        // A broken listener is not an absent one.
        (with("").replace("127.0.0.1:0", "nowhere"), 1),
        // A broken scope is not an absent demand.
        (with_routes("  - { path: /a, upstream: app, scopes: [a, \"b c\"] }\n"), 1),
        // An alias repeats a mistake that stands once.
        (with_routes("  - { path: /a, upstream: app, methods: { GET: &m { scopes: x y }, PUT: *m } }\n"), 1),
    ] {
        let said = findings(&text);
        assert_eq!(said.len(), count, "{text}\n{}", said.join("\n"));
    }
}

#[test]
fn the_second_of_two_definitions_points_at_the_first() {
    let ties =
        with_routes("  - { path: /a, upstream: app, auth: none }\n  - { path: /a, upstream: app, auth: any_key }\n");
    for text in [ties.as_str(), "version: 1\nversion: 1\n"] {
        let loaded = loaded(text);
        let found = loaded.diagnostics.iter().find(|found| matches!(found.code, Code::Tie | Code::Duplicate)).unwrap();
        assert_eq!(found.labels.len(), 1);
        assert_eq!(found.labels[0].text, "first defined here");
        assert!(found.labels[0].at.span.start < found.at.as_ref().unwrap().span.start);
    }
}

#[test]
fn same_path_on_other_hosts_or_methods_is_no_tie() {
    let text = with_routes(
        "  - { path: /a, upstream: app, hosts: [x.test], auth: none }\n  \
         - { path: /a, upstream: app, hosts: [y.test], auth: none }\n  \
         - { path: /a, upstream: app, methods: { GET: { auth: none }, \"*\": { auth: any_key } } }\n  \
         - { path: /a, upstream: app, methods: { PURGE: { scopes: { any: [a, b] } } } }\n",
    );
    let loaded = loaded(&text);
    assert!(loaded.settings.is_some(), "{:?}", loaded.diagnostics);
}

#[test]
fn case_only_differences_are_fine_for_an_upstream_that_reads_bytes() {
    let text = with_routes("  - { path: /A, upstream: app, scopes: a }\n  - { path: /a, upstream: app, scopes: b }\n");
    assert!(loaded(&text).settings.is_none());
    let exact = text.replace("kind: echo", "kind: echo, reads_paths: exact");
    assert_eq!(findings(&exact), Vec::<String>::new());
}

#[test]
fn a_method_that_says_nothing_takes_the_routes_word_and_one_that_speaks_replaces_it() {
    let text = with_routes(
        "  - { path: /a, upstream: app, scopes: [a, b], methods: { GET: {}, POST: { auth: none }, PUT: { scopes: b } } }\n",
    );
    let settings = loaded(&text).settings.expect("loads");
    let demands: Vec<_> = settings.gate.routes[0].methods.iter().map(|rule| rule.demand.clone()).collect();
    let scopes = |names: &[&str]| Demand::Scopes {
        all: names.iter().map(|name| name.parse().unwrap()).collect(),
        any: Vec::new(),
    };
    assert_eq!(demands, [scopes(&["a", "b"]), Demand::Public, scopes(&["b"])]);
}

#[test]
fn a_route_without_methods_means_all_of_them() {
    let settings = loaded(&with("")).settings.expect("loads");
    let rules: Vec<_> = settings.gate.routes[0].methods.iter().map(|rule| rule.selector.clone()).collect();
    assert_eq!(rules, [MethodSelector::All]);
}

#[test]
fn a_routes_mode_replaces_the_global_one() {
    let text = format!(
        "mode: report\n{}",
        with_routes(
            "  - { path: /a, upstream: app, scopes: a }\n  - { path: /b, upstream: app, scopes: b, mode: enforce }\n"
        )
    );
    let modes: Vec<_> = loaded(&text).settings.expect("loads").gate.routes.iter().map(|route| route.mode).collect();
    assert_eq!(modes, [Mode::Report, Mode::Enforce]);
}

#[test]
fn environments_of_the_file_stand_beside_the_usual_ones() {
    let text = with("environments: { staging: {}, test: { word: sandbox } }");
    let environments = loaded(&text).settings.expect("loads").gate.environments;
    let words: Vec<_> = environments.iter().map(|(name, found)| (name.as_str(), found.word.as_str())).collect();
    assert_eq!(words, [("live", "live"), ("staging", "staging"), ("test", "sandbox")]);
}

#[test]
fn a_label_is_the_name_else_the_group_else_the_path() {
    let text = with_routes(
        "  - { path: /a, upstream: app, scopes: a, name: n, group: g }\n  \
         - { path: /b, upstream: app, scopes: b, group: g }\n  - { path: /c, upstream: app, scopes: b }\n",
    );
    let labels: Vec<_> =
        loaded(&text).settings.expect("loads").gate.routes.iter().map(|route| route.label.clone()).collect();
    assert_eq!(labels, ["n", "g", "/c"]);
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let text = with("store: { path: keys.db }\nadmin: { socket: /run/p.sock }");
    let settings = load_text(Path::new("/etc/portcullis/p.yaml"), &text, &no_environment).settings.expect("loads");
    let crate::store::StoreSettings::Sqlite { path } = &settings.store else { panic!("{:?}", settings.store) };
    assert_eq!(path, Path::new("/etc/portcullis/keys.db"));
    assert_eq!(settings.admin.socket, Path::new("/run/p.sock"));
}

#[test]
fn a_bomb_of_aliases_is_refused_quickly() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        let items = vec![format!("*a{below}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let said = findings(&text);
    assert!(said.iter().any(|line| line.contains("keys and values once aliases are followed")), "{}", said.join("\n"));
}

#[test]
fn nesting_is_bounded_in_text_and_through_aliases() {
    let deep = format!("a: {}x{}\n", "[".repeat(5000), "]".repeat(5000));
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..20_000 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    for text in [deep, chain] {
        assert!(findings(&text)[0].contains("too many maps and lists inside each other"));
    }
}

#[test]
fn a_file_of_ten_thousand_routes_loads() {
    let routes: String = (0..10_000)
        .map(|n| format!("  - {{ path: /v1/r{n}/**, upstream: app, methods: {{ GET: {{ scopes: a }}, POST: {{ scopes: b }} }} }}\n"))
        .collect();
    let settings = loaded(&with_routes(&routes)).settings.expect("loads");
    assert_eq!(settings.gate.routes.len(), 10_000);
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("p.yaml");
    let said =
        |path: &Path| load(path, &no_environment).diagnostics.iter().map(ToString::to_string).collect::<String>();
    assert!(said(&main).contains("cannot read it"));
    assert!(said(directory.path()).contains("it is a directory"));
    std::fs::write(&main, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(said(&main).contains("Split it, and name the parts in `include`"));
    std::fs::write(&main, b"version: 1\nmode: \xff\n").unwrap();
    assert!(said(&main).contains("line 2 is not UTF-8"));
}

#[test]
fn included_files_add_their_lists_and_maps() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("p.yaml");
    let parts = directory.path().join("routes.d");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(&main, format!("include: [routes.d/*.yaml]\n{}", with(""))).unwrap();
    std::fs::write(parts.join("b.yaml"), "routes:\n  - { path: /b, upstream: other, scopes: b }\nscopes: { b: {} }\n")
        .unwrap();
    std::fs::write(parts.join("a.yaml"), "upstreams: { other: { kind: echo } }\n").unwrap();
    let first = load(&main, &no_environment);
    let settings = first.settings.expect("loads");
    let files: Vec<_> = settings.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(files, [main.clone(), parts.join("a.yaml"), parts.join("b.yaml")]);
    assert_eq!(settings.gate.routes[1].upstream, "other");
    assert_eq!(settings.gate.routes[1].source.to_string(), format!("{}:2:5", parts.join("b.yaml").display()));

    std::fs::write(parts.join("c.yaml"), "upstreams: { app: { kind: echo } }\nmode: report\nroutes: [{ path: 7 }]\n")
        .unwrap();
    let said: Vec<_> = load(&main, &no_environment).diagnostics.iter().map(ToString::to_string).collect();
    let c = parts.join("c.yaml").display().to_string();
    let expected = [
        format!("{c}:1:14 upstreams.app: `app` is defined twice"),
        format!("{c}:2:1 mode: `mode` stands in an included file"),
        format!("{c}:3:10 routes[0]: `upstream` is missing"),
    ];
    for expected in expected {
        assert!(said.iter().any(|line| line.starts_with(&expected)), "{expected}\n{}", said.join("\n"));
    }
}

#[test]
fn variables_are_replaced_after_parsing_and_only_in_values() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("port"), "7001\n").unwrap();
    let environment = |name: &str| match name {
        "LEVEL" => Some("debug".to_owned()),
        "INJECTED" => Some("x\nmode: report # ".to_owned()),
        "COUNT" => Some("3".to_owned()),
        _ => None,
    };
    let text = with(
        "logging: { level: \"${LEVEL}\" }\nauth: { realm: \"${MISSING:-a}b$$c$d\" }\nworkers: ${COUNT}\n\
         admin: { bind: \"127.0.0.1:${file:port}\", socket: \"/${INJECTED}\" }",
    );
    let settings = load_text(&directory.path().join("p.yaml"), &text, &environment).settings.expect("loads");
    assert_eq!(settings.logging.level, crate::telemetry::LogLevel::Debug);
    assert_eq!(settings.gate.realm, "ab$c$d");
    assert_eq!(settings.workers, crate::server::Workers::Count(3));
    assert_eq!(settings.admin.bind.port(), 7001);
    assert_eq!(settings.admin.socket, Path::new("/x\nmode: report # "));
    assert_eq!(settings.gate.routes[0].mode, Mode::Enforce);
}

#[test]
fn no_secret_is_ever_shown() {
    const CANARY: &str = "hunter2-canary";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), CANARY).unwrap();
    let environment = |_: &str| Some(CANARY.to_owned());
    let broken = [
        with("auth: { peppers: [{ id: p, secret: hunter2-canary }, { id: p, secret: hunter2-canary }] }"),
        with("auth: { peppers: [{ id: p, secrett: hunter2-canary }] }"),
        with("auth: { peppers: [{ id: p, secret: [hunter2-canary] }] }"),
        with("auth: { peppers: [{ secret: hunter2-canary, secret: hunter2-canary }] }"),
        with("auth: { brand: \"${SECRET}\", realm: \"${file:secret}\\\"\" }"),
        with("limits: { head_size: \"${SECRET}\", head_fields: \"${file:secret}\" }\nmode: ${SECRET}"),
        with("upstreams: { u: { targets: [{ url: \"http://me:hunter2-canary@host\" }] } }").replacen(
            "upstreams: { app: { kind: echo } }\n",
            "",
            1,
        ),
        with("").replace("kind: echo", "kind: echo, headers: { set: { X-A: \"hunter2-canary\\n\" } }"),
        with("").replace("kind: echo", "kind: echo, headers: { set: { Authorization: hunter2-canary: x } }"),
        with("store: { path: \"${SECRET}\", driver: \"${SECRET}\" }"),
        with("auth: { accept: [{ header: \"${SECRET} x\" }], trusted_proxies: [\"${SECRET}\"] }"),
        with("admin: { bind: \"${SECRET}\" }\ninclude: [\"/${SECRET}[\"]"),
    ];
    for text_in in broken {
        let loaded = load_text(&directory.path().join("p.yaml"), &text_in, &environment);
        assert!(loaded.settings.is_none(), "{text_in}");
        let shown = [
            text(&loaded.diagnostics, &loaded.sources, Colour::Always),
            json(&loaded.diagnostics).to_string(),
            sarif(&loaded.diagnostics).to_string(),
            format!("{loaded:?}"),
        ];
        for shown in shown {
            assert!(!shown.contains(CANARY), "{text_in}\n{shown}");
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_it_panic(text_in in "[ -~\n\t\u{e9}\u{4e2d}]{0,200}") {
        let loaded = loaded(&text_in);
        let _ = text(&loaded.diagnostics, &loaded.sources, Colour::Never);
    }

    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(cut in 0usize..12_000, length in 0usize..40, put in "[-:{}\\[\\]&*#|>'\"%@`! \n\ta0$]{0,6}") {
        let good = include_str!("../../config/portcullis.example.yaml");
        let start = good.floor_char_boundary(cut.min(good.len()));
        let end = good.floor_char_boundary((start + length).min(good.len()));
        let damaged = format!("{}{put}{}", &good[..start], &good[end..]);
        let loaded = loaded(&damaged);
        let _ = text(&loaded.diagnostics, &loaded.sources, Colour::Never);
        let _ = sarif(&loaded.diagnostics);
    }
}

#[test]
fn what_a_broken_file_may_define_is_not_called_undefined() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("p.yaml");
    let part = directory.path().join("part.yaml");
    std::fs::write(&main, format!("include: [part.yaml]\n{}", with("")).replace("upstream: app", "upstream: other"))
        .unwrap();
    std::fs::write(&part, "upstreams: { other: { kind: echo }\n").unwrap();
    let said: Vec<_> = load(&main, &no_environment).diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{}", said.join("\n"));
    assert!(said[0].contains("a `{` is not closed"));
    std::fs::write(&part, "").unwrap();
    let said: Vec<_> = load(&main, &no_environment).diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{}", said.join("\n"));
    assert!(said[0].contains("the file is empty"));
}

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_change_no_position() {
    let text = with("mode: reprot").replace('\n', "\r\n");
    for text in [text.clone(), format!("\u{feff}{text}")] {
        let said = findings(&text);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("p.yaml:1:7 mode: \"reprot\""), "{said:?}");
    }
}
