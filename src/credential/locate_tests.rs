use base64::Engine;
use http::HeaderName;

use super::{Located, Malformed, Place, Scheme, Stripped, locate, strip_field, strip_query};
use crate::domain::{KeyHash, OwnedFields};

fn owned(fields: &[(&str, &str)]) -> OwnedFields {
    let mut owned = OwnedFields::default();
    fields.iter().for_each(|(name, value)| owned.push(name.as_bytes(), value.as_bytes()));
    owned
}

fn header(name: &'static str, scheme: Option<Scheme>) -> Place {
    Place::Header { name: HeaderName::from_static(name), scheme }
}

#[derive(Debug, PartialEq)]
enum Seen {
    None,
    /// The hash of the credential that was found.
    One(KeyHash),
    Malformed(Malformed),
}

fn one(text: &str) -> Seen {
    Seen::One(KeyHash::sha256(&crate::domain::PresentedKey::new(text).unwrap()))
}

fn seen(fields: &[(&str, &str)], query: Option<&str>, accept: &[Place]) -> Seen {
    match locate(owned(fields).view(), query, accept) {
        Located::None => Seen::None,
        Located::One(credential) => Seen::One(KeyHash::sha256(&credential.key())),
        Located::Malformed(why) => Seen::Malformed(why),
    }
}

#[test]
fn default_places_take_bearer_or_x_api_key_and_never_both() {
    let accept = Place::defaults();
    let cases: &[(&[(&str, &str)], Seen)] = &[
        (&[], Seen::None),
        (&[("authorization", "Bearer k1")], one("k1")),
        (&[("authorization", "bEARER   k1")], one("k1")),
        (&[("x-api-key", "k1")], one("k1")),
        (&[("authorization", "Bearer k1"), ("x-api-key", "k1")], Seen::Malformed(Malformed::Several)),
        (&[("authorization", "Bearer k1"), ("authorization", "Bearer k2")], Seen::Malformed(Malformed::Several)),
        (&[("x-api-key", "k1"), ("x-api-key", "k1")], Seen::Malformed(Malformed::Several)),
        (&[("authorization", "Bearer a,b")], Seen::Malformed(Malformed::NotOneToken)),
        (&[("authorization", "Bearer a b")], Seen::Malformed(Malformed::NotOneToken)),
        (&[("authorization", "Bearer")], Seen::Malformed(Malformed::SchemeWithoutToken)),
        (&[("authorization", "Bearer ")], Seen::Malformed(Malformed::SchemeWithoutToken)),
        (&[("authorization", "")], Seen::Malformed(Malformed::Empty)),
        (&[("x-api-key", "")], Seen::Malformed(Malformed::Empty)),
        (&[("authorization", "Digest a=b, c=d")], Seen::None),
        (&[("authorization", "Bearer k1"), ("authorization", "Digest a=b")], Seen::Malformed(Malformed::Several)),
        (&[("authorization", "Digest a=b"), ("authorization", "Bearer k1")], Seen::Malformed(Malformed::Several)),
        (&[("authorization", "Bearerk1")], Seen::None),
        (&[("authorization", "Digest x"), ("x-api-key", "k1")], one("k1")),
    ];
    for (fields, expected) in cases {
        assert_eq!(seen(fields, None, &accept), *expected, "{fields:?}");
    }
    let long = format!("Bearer {}", "x".repeat(8 * 1024 + 1));
    assert_eq!(seen(&[("authorization", &long)], None, &accept), Seen::Malformed(Malformed::TooLong));
}

#[test]
fn basic_takes_a_key_with_empty_password_or_a_pair() {
    let accept = [header("authorization", Some(Scheme::Basic))];
    let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    assert_eq!(seen(&[("authorization", &basic("thekey:"))], None, &accept), one("thekey"));
    assert_eq!(seen(&[("authorization", &basic("id:secret"))], None, &accept), one("id:secret"));
    for bad in [basic("nocolon"), "Basic %%%".into(), basic("\u{ff}:")] {
        let Seen::Malformed(_) = seen(&[("authorization", &bad)], None, &accept) else { panic!("{bad}") };
    }
    assert_eq!(seen(&[("authorization", &basic(":secret"))], None, &accept), Seen::Malformed(Malformed::Empty));
    assert_eq!(seen(&[("authorization", "Bearer k1")], None, &accept), Seen::None);
}

#[test]
fn cookies_and_parameters_count_only_where_accepted() {
    let cookie = [Place::Cookie { name: "session".into() }];
    let query = [Place::Query { name: "api_key".into() }];
    let both = [cookie[0].clone(), query[0].clone()];
    let sent: &[(&str, &str)] = &[("cookie", "a=1; session=k1; b=2")];
    assert_eq!(seen(sent, Some("api_key=k2"), &cookie), one("k1"));
    assert_eq!(seen(sent, Some("x=1&api_key=k2"), &query), one("k2"));
    assert_eq!(seen(sent, Some("api_key=k2"), &both), Seen::Malformed(Malformed::Several));
    assert_eq!(seen(sent, Some("api_key=k2"), &Place::defaults()), Seen::None);
    assert_eq!(seen(&[], Some("api%5Fkey=k%32"), &query), one("k2"));
    assert_eq!(seen(&[], Some("api_key=%zz"), &query), Seen::Malformed(Malformed::BadEscape));
    assert_eq!(seen(&[], Some("api_key"), &query), Seen::Malformed(Malformed::Empty));
    assert_eq!(seen(&[], Some("API_KEY=k2"), &query), Seen::None);
    let twice: &[(&str, &str)] = &[("cookie", "session=a"), ("cookie", "session=b")];
    assert_eq!(seen(twice, None, &cookie), Seen::Malformed(Malformed::Several));
}

#[test]
fn a_pair_in_two_fields_is_one_credential() {
    let pair =
        Place::Pair { id: HeaderName::from_static("x-api-key"), secret: HeaderName::from_static("x-api-secret") };
    let accept = [pair, header("authorization", Some(Scheme::Bearer))];
    let cases: &[(&[(&str, &str)], Seen)] = &[
        (&[("x-api-key", "id"), ("x-api-secret", "secret")], one("id:secret")),
        (&[("X-API-SECRET", "secret"), ("X-Api-Key", "id")], one("id:secret")),
        (&[("x-api-key", "key")], one("key")),
        (&[("x-api-secret", "secret")], Seen::Malformed(Malformed::HalfOfAPair)),
        (&[("x-api-key", ""), ("x-api-secret", "secret")], Seen::Malformed(Malformed::Empty)),
        (&[("x-api-key", "id"), ("x-api-secret", "")], Seen::Malformed(Malformed::Empty)),
        (&[("x-api-key", "id"), ("x-api-secret", "a b")], Seen::Malformed(Malformed::NotOneToken)),
        (&[("x-api-key", "id"), ("x-api-secret", "a"), ("x-api-secret", "b")], Seen::Malformed(Malformed::Several)),
        (
            &[("x-api-key", "id"), ("x-api-secret", "a"), ("authorization", "Bearer k")],
            Seen::Malformed(Malformed::Several),
        ),
        (&[("authorization", "Bearer k")], one("k")),
        (&[], Seen::None),
    ];
    for (fields, expected) in cases {
        assert_eq!(seen(fields, None, &accept), *expected, "{fields:?}");
    }
    let (id, secret) = ("i".repeat(5_000), "s".repeat(5_000));
    let long = [("x-api-key", id.as_str()), ("x-api-secret", secret.as_str())];
    assert_eq!(seen(&long, None, &accept), Seen::Malformed(Malformed::TooLong));
    let fields = owned(&[("X-API-Key", "id"), ("X-API-Secret", "secret"), ("x-api", "stays")]);
    let stripped: Vec<Stripped> = fields.view().iter().map(|field| strip_field(&field, &accept)).collect();
    assert_eq!(stripped, [Stripped::Removed, Stripped::Removed, Stripped::Unchanged]);
}

#[test]
fn stripping_removes_the_credential_and_nothing_else() {
    let fields = owned(&[
        ("Authorization", "Bearer k1"),
        ("authorization", "Digest app"),
        ("authorization", ""),
        ("X-API-Key", "k1"),
        ("cookie", "a=1; session=k1; b=2"),
        ("cookie", "session=k1"),
        ("cookie", "c=3"),
        ("cookie", "session=k1; =session=other;; d = \"4\" "),
        ("accept", "*/*"),
    ]);
    let mut accept = Place::defaults();
    accept.push(Place::Cookie { name: "session".into() });
    let stripped: Vec<Stripped> = fields.view().iter().map(|field| strip_field(&field, &accept)).collect();
    use Stripped::{Removed, Rewritten, Unchanged};
    let left = Rewritten(b"a=1; b=2".to_vec());
    // What has no name gets none by being written anew.
    let nameless = Rewritten(b"=session=other; d = \"4\"".to_vec());
    assert_eq!(stripped, [Removed, Unchanged, Removed, Removed, left, Removed, Unchanged, nameless, Unchanged]);

    let query = [Place::Query { name: "api_key".into() }];
    assert_eq!(strip_query("a=1&api%5Fkey=k&b=%zz&&c", &query).as_deref(), Some("a=1&b=%zz&&c"));
    assert_eq!(strip_query("a=1", &query), None);
    assert_eq!(strip_query("api_key=k", &query).as_deref(), Some(""));
}
