//! The other verbs: init, version, completions, config show.

use portcullis_testkit::{Gateway, Site};

use crate::{scene, tools};

/// A directory with nothing in it.
fn nowhere() -> Site {
    let site = Site::with(scene::BINARY).prepare();
    std::fs::remove_file(site.config_path()).unwrap();
    site
}

/// The data in `site` served on ports of the kernel's choice instead of the default ones.
async fn start_anywhere(site: &Site) -> Gateway {
    let text = std::fs::read_to_string(site.config_path()).unwrap();
    let moved = [":8080", ":9901", ":9902"].iter().fold(text, |text, port| text.replace(port, ":0"));
    let mut text = moved;
    for (section, usual) in
        [("admin", "admin: { bind: \"127.0.0.1:0\" }\n"), ("metrics", "metrics: { bind: \"127.0.0.1:0\" }\n")]
    {
        if !text.lines().any(|line| line.starts_with(&format!("{section}:"))) {
            text.push_str(usual);
        }
    }
    std::fs::write(site.config_path(), text).unwrap();
    site.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn init_makes_a_configuration_that_runs_and_one_management_key() {
    let site = nowhere();
    let first = site.bare_cli(&["init", "."], "").await.success();
    let management: Vec<_> =
        first.everything().split_whitespace().filter(|word| word.contains("_mk_")).map(str::to_owned).collect();
    assert_eq!(management.len(), 1, "the key is printed once: {first:?}");
    site.vault().keep(management[0].trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    assert!(site.path("data/portcullis.db").is_file());
    let text = std::fs::read_to_string(site.config_path()).unwrap();
    assert!(text.contains('#') && text.contains("schema"), "commented, and names its schema:\n{text}");
    let schemas = std::fs::read_dir(site.directory()).unwrap().flatten();
    assert!(schemas.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".schema.json")));
    let _ = site.cli(&["check"]).await.success();
    let records = site.cli(&["keys", "list", "--output", "json"]).await.success().json();
    assert_eq!((records.as_array().unwrap().len(), &records[0]["kind"]), (1, &"management".into()), "{records}");
    assert!(records[0]["scopes"].to_string().contains("portcullis:keys"), "{records}");

    let gateway = start_anywhere(&site).await;
    assert_eq!(gateway.health("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_never_overwrites() {
    let site = nowhere();
    std::fs::create_dir(site.path("gate")).unwrap();
    let _ = site.bare_cli(&["init", "gate"], "").await.success();
    let before = std::fs::read(site.path("gate/portcullis.yaml")).unwrap();
    let again = site.bare_cli(&["init", "gate"], "").await;
    assert_ne!(again.code, 0, "{again:?}");
    let _ = again.says(&["portcullis.yaml"]);
    assert_eq!(std::fs::read(site.path("gate/portcullis.yaml")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_found_in_the_directory_or_named_before_or_after_the_verb() {
    let (site, _origin) = scene::closed_shop().await;
    let config = site.config_path();
    let config = config.to_str().unwrap();
    for args in [&["check"][..], &["-c", config, "check"], &["check", "-c", config], &["check", "--config", config]] {
        let _ = site.bare_cli(args, "").await.success();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_the_packages() {
    let site = nowhere();
    for args in [&["version"][..], &["--version"]] {
        let _ = site.bare_cli(args, "").await.success().says(&[env!("CARGO_PKG_VERSION")]);
    }
    for args in [&["--help"][..], &["help"], &["keys", "--help"], &["run", "--help"]] {
        let help = site.bare_cli(args, "").await.success();
        assert!(help.stdout.contains("Usage"), "{help:?}");
        assert!(!help.stdout.contains('\u{1b}'), "no colour on pipes");
    }
    let nothing = site.bare_cli(&[], "").await;
    assert_eq!(nothing.code, 2, "{nothing:?}");
    let _ = site.bare_cli(&["chek"], "").await.exit(2).says(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_scripts_their_shells_can_read() {
    let site = nowhere();
    for (shell, reader) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let script = site.bare_cli(&["completions", shell], "").await.success();
        assert!(script.stdout.contains("portcullis") && script.stdout.contains("revoke"), "{shell}");
        let path = site.write(format!("complete.{shell}"), &script.stdout);
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|directory| directory.join(reader))
            .find(|candidate| candidate.is_file());
        if let Some(reader) = found {
            let (code, said) = tools::run(&reader, &["-n", path.to_str().unwrap()], "").await;
            assert_eq!(code, 0, "{shell}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_effective_configuration_is_itself_a_configuration() {
    let (site, _origin) = scene::closed_shop().await;
    let effective = site.cli(&["config", "show", "--effective"]).await.success();
    let value: serde_json::Value = serde_yaml::from_str(&effective.stdout).expect("YAML");
    assert_eq!(value["limits"]["head_timeout"], "10s", "defaults are written out: {value}");
    assert_eq!(value["routes"][0]["name"], "orders", "{value}");
    site.write("effective.yaml", &effective.stdout);
    let path = site.path("effective.yaml");
    let _ = site.bare_cli(&["check", "-c", path.to_str().unwrap()], "").await.success();
    let _ = site.cli(&["config", "show", "--origin"]).await.success().says(&["portcullis.yaml:"]);
}
