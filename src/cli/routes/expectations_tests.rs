use super::*;

#[test]
fn expectations_know_who_asks_what_is_expected_and_where_they_stand() {
    let text = "# what must hold\n\
                - { method: GET, url: /a, scopes: [r], expect: allow }\n\
                - method: POST\n  url: /b\n  scopes: []\n  kind: publishable\n  expect: 403\n  code: kind_not_allowed\n\n\
                - { method: GET, url: /c, expect: missing_credential }\n\
                - { method: GET, url: /d, key: none, expect: \"401\" }\n\
                - { method: GET, url: /e, roles: [x], environment: test, expect: report }\n";
    let found = parse(text).unwrap();
    let lines: Vec<usize> = found.iter().map(|expectation| expectation.line).collect();
    assert_eq!(lines, [2, 3, 10, 11, 12]);
    let expects: Vec<Expected> = found.iter().map(|expectation| expectation.expect).collect();
    assert_eq!(
        expects,
        [
            Expected::Allow,
            Expected::Status(403),
            Expected::Code("missing_credential"),
            Expected::Status(401),
            Expected::Report
        ]
    );
    let key = |scopes: &[&str], roles: &[&str], environment: &str, kind: &str| ExpectedCaller::Key {
        scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        roles: roles.iter().map(|s| (*s).to_owned()).collect(),
        environment: environment.to_owned(),
        kind: kind.to_owned(),
    };
    assert_eq!(found[0].caller, key(&["r"], &[], "live", "secret"));
    assert_eq!(found[1].caller, key(&[], &[], "live", "publishable"));
    assert_eq!((&found[2].caller, &found[3].caller), (&ExpectedCaller::Nobody, &ExpectedCaller::Nobody));
    assert_eq!(found[4].caller, key(&[], &["x"], "test", "secret"));
    assert_eq!(found[1].code.as_deref(), Some("kind_not_allowed"));
}

#[test]
fn what_makes_no_sense_is_refused_where_it_stands() {
    let cases = [
        ("- { method: GET, url: /, expect: allow }\n- { method: GET, url: / }\n", "2: "),
        ("- { method: GET, url: /, scopes: [a], key: none, expect: 401 }\n", "neither scopes nor roles"),
        ("- { method: GET, url: /, key: pc_live_x, expect: 401 }\n", "can only be `none`"),
        ("- { method: GET, url: /, expect: maybe }\n", "`expect` is"),
        ("- { method: GET, url: /, expect: 200 }\n", "`expect` is"),
        ("- { method: GET, url: /, expect: allow, code: x }\n", "beside a status"),
        ("- { method: GET, url: /, expect: allow, scope: [a] }\n", "scope"),
        ("- { method: GET, url: /, kind: secret, expect: allow }\n", "say who asks"),
        ("a: 1\n", "1"),
        ("- [\n", ""),
    ];
    for (text, word) in cases {
        let problem = parse(text).unwrap_err();
        assert!(problem.contains(word) && problem.starts_with(|c: char| c.is_ascii_digit()), "{text}: {problem}");
    }
}
