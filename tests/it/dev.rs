//! `dev`: one command, three lines to paste, and each answers what it says.

use portcullis_testkit::{Answer, Gateway, Origin, Site, Stream, eventually};

use crate::{scene, tools};

const ANYWHERE: [&str; 6] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];

/// A directory without any configuration, where curl says the status behind the body.
fn empty_site() -> Site {
    Site::with(scene::BINARY).file("home/.curlrc", "silent\nwrite-out = \"\\n%{http_code}\"\n").prepare()
}

async fn dev(site: &Site, more: &[&str]) -> Gateway {
    let args: Vec<&str> = ["dev"].into_iter().chain(ANYWHERE).chain(more.iter().copied()).collect();
    std::fs::remove_file(site.config_path()).unwrap();
    let gateway = site.launch(&args);
    eventually!("three lines to paste are printed", curl_lines(&gateway).len() == 3);
    gateway
}

fn curl_lines(gateway: &Gateway) -> Vec<String> {
    gateway.logs().lines_of(Stream::Out).into_iter().filter(|line| line.trim_start().starts_with("curl ")).collect()
}

/// Pastes a line into a shell: status and body.
async fn paste(site: &Site, line: &str) -> (u16, String) {
    let output = tokio::process::Command::new("sh")
        .args(["-c", line])
        .env("CURL_HOME", site.path("home"))
        .current_dir(site.directory())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{line}: {output:?}"));
    (status.trim().parse().unwrap_or_else(|_| panic!("{line}: {output:?}")), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_lines_can_be_pasted_and_answer_200_401_and_403() {
    if tools::find("curl").is_none() {
        return;
    }
    let site = empty_site();
    let gateway = dev(&site, &[]).await;
    let mut statuses = Vec::new();
    for line in curl_lines(&gateway) {
        let (status, body) = paste(&site, &line).await;
        if status == 200 {
            // The built-in echo shows what an upstream would get.
            assert!(body.contains("x-portcullis-key-id"), "{body}");
            assert!(!body.to_ascii_lowercase().contains("\"authorization\""), "{body}");
        }
        if let Some((_, comment)) = line.split_once('#') {
            assert!(comment.contains(&status.to_string()), "{line} answered {status}");
        }
        statuses.push(status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 403]);
    assert!(!site.path("data").exists(), "a trial leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_in_front_of_a_real_upstream_forwards_to_it() {
    if tools::find("curl").is_none() {
        return;
    }
    let origin = Origin::start().await;
    origin.answer(Answer::ok("from the real one"));
    let site = empty_site();
    let url = format!("http://{}", origin.authority());
    let gateway = dev(&site, &["--upstream", &url]).await;
    let mut answered = Vec::new();
    for line in curl_lines(&gateway) {
        let (status, body) = paste(&site, &line).await;
        if status == 200 {
            answered.push(body);
        }
    }
    assert_eq!(answered.len(), 1, "{answered:?}");
    assert!(answered[0].ends_with("from the real one"), "{answered:?}");
    let seen = origin.only();
    assert!(seen.has("x-portcullis-key-id") && !seen.has("authorization") && !seen.has("x-api-key"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let site = empty_site();
    for flag in ["--listen", "--admin", "--metrics"] {
        let mut args = vec!["dev"];
        for pair in ANYWHERE.chunks(2) {
            args.extend([pair[0], if pair[0] == flag { address.as_str() } else { pair[1] }]);
        }
        let _ = site.bare_cli(&args, "").await.exit(1).says(&[&address, flag]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_no_url_is_a_usage_error() {
    let site = empty_site();
    let args: Vec<&str> = ["dev", "--upstream", "not a url"].into_iter().chain(ANYWHERE).collect();
    let _ = site.bare_cli(&args, "").await.exit(2).says(&["--upstream"]);
}
