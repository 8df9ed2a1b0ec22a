use super::{DevOptions, dev_settings, init_template};
use crate::config::load_text;
use crate::gate::{Demand, MethodSelector};
use crate::proxy::UpstreamKind;
use crate::store::StoreSettings;

fn options(upstream: Option<&str>) -> DevOptions {
    DevOptions {
        upstream: upstream.map(str::to_owned),
        listen: "127.0.0.1:8080".parse().unwrap(),
        admin: "[::1]:9901".parse().unwrap(),
        metrics: "127.0.0.1:9902".parse().unwrap(),
    }
}

#[test]
fn a_trial_needs_nothing_and_covers_every_path() {
    let settings = dev_settings(&options(None)).expect("the built-in settings are right");
    assert_eq!(settings.store, StoreSettings::Memory);
    assert_eq!(settings.upstreams[0].kind, UpstreamKind::Echo);
    assert_eq!(settings.admin.bind, "[::1]:9901".parse().unwrap());
    assert!(settings.reload_watch);
    assert!(settings.files.is_empty());
    let [route] = &settings.gate.routes[..] else { panic!("one route") };
    assert_eq!(route.path.as_str(), "/**");
    let demand = |selector: &MethodSelector| {
        let Demand::Scopes { all, any } = &route.methods.iter().find(|rule| rule.selector == *selector).unwrap().demand
        else {
            panic!("nothing is public in a trial")
        };
        assert!(any.is_empty());
        all.iter().map(|scope| scope.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(demand(&MethodSelector::Named(http::Method::GET)), ["read:anything"]);
    assert_eq!(demand(&MethodSelector::Named(http::Method::OPTIONS)), ["read:anything"]);
    assert_eq!(demand(&MethodSelector::All), ["write:anything"]);
}

#[test]
fn a_trial_forwards_to_the_upstream_it_was_given() {
    let settings = dev_settings(&options(Some("http://localhost:3000"))).expect("a URL");
    assert_eq!(settings.upstreams[0].targets[0].url, "http://localhost:3000/");
}

#[test]
fn an_upstream_that_is_no_url_is_refused_whatever_it_holds() {
    for upstream in ["localhost:3000", "ftp://h", "http://h/path", "x\" }], y: [{ z: \"", "${HOME}", "http://u:p@h", ""]
    {
        let problems = dev_settings(&options(Some(upstream))).expect_err(upstream);
        assert_eq!(problems.len(), 1, "{upstream}: {problems:?}");
        assert_eq!(problems[0].path, "upstreams.app.targets[0].url");
    }
}

#[test]
fn the_file_that_init_writes_names_its_schema_and_starts() {
    assert!(init_template().starts_with("# yaml-language-server: $schema=portcullis.schema.json\n"));
    let loaded = load_text(std::path::Path::new("portcullis.yaml"), init_template(), &|_| None);
    assert_eq!(loaded.diagnostics, []);
    let settings = loaded.settings.expect("loads");
    assert_eq!(settings.store, StoreSettings::Sqlite { path: "data/portcullis.db".into() });
}
