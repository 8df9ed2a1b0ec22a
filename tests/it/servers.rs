//! Servers and proxies of other people, as processes of their own: each writes down the requests that it has read.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portcullis_testkit::eventually;

use crate::tools;

/// A running server, and the directory that is its own. Dropping it ends it.
pub struct Server {
    name: &'static str,
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
}

/// A request as a server saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Method and target.
    pub request: String,
    /// How it was answered.
    pub status: u16,
}

impl Server {
    /// Starts nginx with what stands in `http { server { … } }`, and beside it; none where it is not installed.
    pub async fn nginx(port: u16, inside: &str, beside: &str) -> Option<Self> {
        let program = tools::find("nginx")?;
        let directory = place();
        let here = directory.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
               log_format seen '$request_method $request_uri $status'; access_log {here}/seen seen;\n\
               client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;\n\
               uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;\n\
               {beside}\n\
               server {{ listen 127.0.0.1:{port};\n{inside}\n}}\n\
             }}\n"
        );
        let config = write(&directory, "nginx.conf", &config);
        let home = directory.path().to_str().unwrap().to_owned();
        Some(Self::start("nginx", &program, &["-c", &config, "-p", &home], directory, port).await)
    }

    /// Starts HAProxy with what stands in its one `frontend`, and the sections behind it.
    pub async fn haproxy(inside: &str, behind: &str) -> Option<Self> {
        let program = tools::find("haproxy")?;
        let (directory, port) = (place(), free_port());
        let config = format!(
            // One thread: two that log at once lose a line.
            "global\n  maxconn 300\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n  \
             log stdout format raw daemon\n  log-format \"%HM %HU %ST\"\n  http-reuse always\n\
             frontend front\n  bind 127.0.0.1:{port}\n  {inside}\n{behind}\n"
        );
        let config = write(&directory, "haproxy.cfg", &config);
        Some(Self::start("HAProxy", &program, &["-db", "-f", &config], directory, port).await)
    }

    /// Starts Apache with these modules and what else stands in its configuration.
    pub async fn apache(modules: &[&str], inside: &str) -> Option<Self> {
        let program = tools::find("apache2")?;
        let (directory, port) = (place(), free_port());
        let here = directory.path().display();
        let modules: String = modules
            .iter()
            .map(|module| format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n"))
            .collect();
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        let config = format!(
            "ServerRoot {here}\nDefaultRuntimeDir {here}\nPidFile {here}/pid\nListen 127.0.0.1:{port}\nServerName localhost\n\
             LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
             LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n{modules}\
             User www-data\nGroup www-data\nErrorLog {here}/error.log\nLogFormat \"%m %U %>s\" seen\nCustomLog {here}/seen seen\n\
             DocumentRoot {here}/empty\nKeepAlive On\nMaxKeepAliveRequests 0\nStartServers 1\nServerLimit 1\n\
             ThreadsPerChild 64\nMaxRequestWorkers 64\n{inside}\n"
        );
        let config = write(&directory, "apache.conf", &config);
        Some(Self::start("Apache", &program, &["-DFOREGROUND", "-f", &config], directory, port).await)
    }

    /// Starts a program that reads a script, and is told the port as its last argument; what the script prints is what it
    /// has read.
    pub async fn script(name: &'static str, program: &Path, script: &str, args: &[&str]) -> Self {
        let (directory, port) = (place(), free_port());
        let script = write(&directory, "script", script);
        let port_text = port.to_string();
        let args = [&[script.as_str()], args, &[port_text.as_str()]].concat();
        Self::start(name, program, &args, directory, port).await
    }

    async fn start(name: &'static str, program: &Path, args: &[&str], directory: tempfile::TempDir, port: u16) -> Self {
        let seen = File::options().create(true).append(true).open(directory.path().join("seen")).unwrap();
        let process = Command::new(program)
            .args(args)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(seen)
            .stderr(File::create(directory.path().join("said")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut server = Self { name, process, directory, port };
        eventually!(format!("{name} listens"), {
            if let Ok(Some(status)) = server.process.try_wait() {
                panic!("{name} ended with {status}: {}", server.said());
            }
            tokio::net::TcpStream::connect(server.address()).await
        });
        server
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Every request that it has written down so far; not those that it could not read.
    pub fn seen(&self) -> Vec<Line> {
        let text = std::fs::read(self.directory.path().join("seen")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().filter_map(line).collect()
    }

    /// What it complained of.
    pub fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("said") + &read("error.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An orderly end takes its workers along.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// `METHOD TARGET STATUS`; what no method was found in is no request.
fn line(text: &str) -> Option<Line> {
    let (request, status) = text.rsplit_once(' ')?;
    let is_method = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let (method, target) = request.split_once(' ')?;
    // An absolute form (RFC 9112 §3.2.2) names what its path names.
    let path = target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(target);
    is_method(method).then(|| Line { request: format!("{method} {path}"), status: status.parse().unwrap_or_default() })
}

/// A directory that servers who give up their rights can enter.
fn place() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

/// None of them can say which port it took; one that was free a moment ago almost certainly is.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write(directory: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
