//! `health`: what the running gateway's health page says, for machines that have nothing else to ask it with.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::console::Console;
use super::failure::Failure;
use super::output::visible;
use super::registry::speak;
use super::{findings, site};
use crate::config::{self, Loaded};
use crate::domain::time::{show_duration, span_of_text};

/// How long, unless it is said, and at most.
const USUAL: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// Where a gateway answers unless its configuration says otherwise.
const USUAL_ADDRESS: &str = "127.0.0.1:9902";
/// More than any health page says.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// `health`.
#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// Whether it can take requests: its key set is loaded, and it was not told to leave (the default)
    #[arg(long, conflicts_with = "live")]
    ready: bool,
    /// Whether it is there at all
    #[arg(long)]
    live: bool,
    /// Ask there [default: `metrics.bind` of the configuration]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// How long it may take, up to 1m
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = patience)]
    timeout: Duration,
}

fn patience(text: &str) -> Result<Duration, String> {
    let span = span_of_text(text).ok().filter(|span| !span.is_zero() && *span <= LONGEST);
    span.ok_or_else(|| format!("write 1ms to {}, for example {}", show_duration(LONGEST), show_duration(USUAL)))
}

/// Asks the page, and says in one line what it says.
///
/// # Errors
/// [`Failure::Runtime`] when it says no, or nothing; [`Failure::Configuration`] when nobody knows where to ask.
pub(super) fn run(config: Option<&Path>, args: &HealthArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let address = match args.address {
        Some(address) => address,
        None => address_of(config)?,
    };
    let path = if args.live { "/livez" } else { "/readyz" };
    let (status, said) = ask(reachable(address), path, args.timeout)
        .map_err(|error| Failure::runtime(format!("no gateway answers at http://{address}{path}: {error}")))?;
    let said = visible(said.lines().next().unwrap_or_default().trim());
    match status {
        StatusCode::OK => Ok(writeln!(console.out, "{said}")?),
        status => Err(Failure::runtime(format!("http://{address}{path} answers {}: {said}", status.as_u16()))),
    }
}

/// Where the gateway of a configuration answers. A file that cannot be used any more tells as much as it can: the gateway
/// goes on by what it read before.
fn address_of(config: Option<&Path>) -> Result<SocketAddr, Failure> {
    let path = site::find(config)?;
    let loaded = config::load(&path, &site::variable);
    let address = match &loaded.settings {
        Some(settings) => settings.metrics.bind,
        None => written_address(&path, &loaded)?,
    };
    if address.port() == 0 {
        return Err(Failure::runtime(format!(
            "`metrics.bind` of {} leaves the port to the system; name the one that the gateway logged with --address",
            path.display()
        )));
    }
    Ok(address)
}

fn written_address(path: &Path, loaded: &Loaded) -> Result<SocketAddr, Failure> {
    let unusable = || Failure::Configuration(findings::text(loaded));
    let text = std::fs::read_to_string(path).map_err(|_| unusable())?;
    let written: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|_| unusable())?;
    let bind = written.get("metrics").and_then(|metrics| metrics.get("bind"));
    let bind = bind.map_or(Some(USUAL_ADDRESS), serde_yaml::Value::as_str);
    bind.and_then(|bind| bind.parse().ok()).ok_or_else(unusable)
}

/// Every address of a machine is none that could be asked; its own one is.
fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(host) if host.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(host) if host.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    SocketAddr::new(host, address.port())
}

/// The status and the body of a page.
fn ask(address: SocketAddr, path: &str, patience: Duration) -> io::Result<(StatusCode, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = async {
        let mut connection = speak(TokioIo::new(TcpStream::connect(address).await?)).await?;
        let request = Request::get(path).header(HOST, address.to_string()).body(Full::default());
        let answer = connection.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(io::Error::other)?;
        Ok((head.status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it takes too long");
    runtime.block_on(async { tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(late())) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::domain::time::monotonic_now;

    #[test]
    fn a_machine_is_asked_at_its_own_address() {
        for (bind, asked) in
            [("0.0.0.0:9902", "127.0.0.1:9902"), ("[::]:1", "[::1]:1"), ("192.0.2.7:9902", "192.0.2.7:9902")]
        {
            assert_eq!(reachable(bind.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn only_an_answer_is_taken_for_one() {
        for (said, found) in [
            (&b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n"[..], Some((503, "no\n"))),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut off", None),
            (b"SSH-2.0-x\r\n\r\n", None),
            (b"", None),
        ] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            let speaking = std::thread::spawn(move || {
                let (mut stream, _) = server.accept().unwrap();
                let _request = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(said).unwrap();
            });
            let answer = ask(address, "/readyz", LONGEST).ok();
            speaking.join().unwrap();
            assert_eq!(answer.as_ref().map(|(status, body)| (status.as_u16(), body.as_str())), found, "{said:?}");
        }
    }

    #[test]
    fn who_says_nothing_is_not_waited_for() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let began = monotonic_now();
        let error = ask(address, "/readyz", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn patience_has_bounds() {
        assert_eq!(patience("500ms"), Ok(Duration::from_millis(500)));
        for odd in ["0s", "61s", "soon"] {
            assert!(patience(odd).is_err(), "{odd}");
        }
    }
}
