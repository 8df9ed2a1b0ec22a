//! Where the process is asked: sockets of data, of management and of operators, and the thread that accepts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::error::RunError;
use crate::admin::Api;
use crate::config::Settings;
use crate::server::{
    Accepting, Acceptor, Bind, EdgeTls, Inherited, Listener, ListenerSettings, Listening, Pages, listen,
    serve_management, serve_pages,
};

/// What the management listener speaks TLS with.
///
/// # Errors
/// When there is no entry of the name: never does it fall back to plain HTTP.
pub(super) fn admin_tls(
    settings: &Settings,
    known: &BTreeMap<String, Arc<EdgeTls>>,
) -> Result<Option<Arc<EdgeTls>>, RunError> {
    let Some(name) = &settings.admin.tls else { return Ok(None) };
    let missing = || RunError::System {
        doing: "speak TLS on the management address",
        source: std::io::Error::other(format!("there is no entry `{name}` of `tls`")),
    };
    known.get(name).cloned().map(Some).ok_or_else(missing)
}

/// Serves the management API on the control runtime; returns where.
pub(super) fn serve_api(
    socket: Listening,
    api: Arc<Api>,
    tls: Arc<ArcSwapOption<EdgeTls>>,
) -> Result<String, RunError> {
    let address = socket.address();
    if let Listening::Tcp(socket) = socket {
        let listener = tokio::net::TcpListener::from_std(socket)
            .map_err(|source| RunError::System { doing: "listen for management", source })?;
        drop(tokio::spawn(serve_management(listener, api, tls)));
    }
    Ok(address)
}

/// Serves pages on the control runtime, and says where.
pub(super) fn serve_operators(role: &str, socket: Listening, pages: Arc<dyn Pages>) -> Result<String, RunError> {
    let address = socket.address();
    if let Listening::Tcp(socket) = socket {
        let listener = tokio::net::TcpListener::from_std(socket)
            .map_err(|source| RunError::System { doing: "listen for operators", source })?;
        drop(tokio::spawn(serve_pages(listener, pages)));
    }
    tracing::info!(role, address = %address, "listening");
    Ok(address)
}

/// Opens the sockets of all data listeners, or takes those that were handed down.
pub(super) fn open_data_sockets(settings: &Settings, inherited: &mut Inherited) -> Result<Vec<Listening>, RunError> {
    settings
        .listeners
        .iter()
        .enumerate()
        .map(|(number, listener)| match inherited.take(&listener.bind) {
            Some(socket) => Ok(socket),
            None => listen(&listener.bind, &format!("listeners[{number}].bind")).map_err(RunError::Listen),
        })
        .collect()
}

/// The thread that accepts connections, so that no control work delays them.
pub(super) struct AcceptThread {
    requests: mpsc::UnboundedSender<AcceptRequest>,
    thread: std::thread::JoinHandle<()>,
}

struct AcceptRequest {
    socket: Listening,
    listener: Arc<Listener>,
    answer: tokio::sync::oneshot::Sender<std::io::Result<Accepting>>,
}

impl AcceptThread {
    /// Starts the thread.
    pub(super) fn start(acceptor: Acceptor) -> std::io::Result<Self> {
        let (requests, mut inbox) = mpsc::unbounded_channel::<AcceptRequest>();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("accept".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _told = ready.send(Ok(()));
            runtime.block_on(async {
                while let Some(AcceptRequest { socket, listener, answer }) = inbox.recv().await {
                    // Whoever asked may have given up; the socket is closed then.
                    let _answered = answer.send(acceptor.accept_from(socket, listener));
                }
            });
        })?;
        started.recv().map_err(std::io::Error::other)??;
        Ok(Self { requests, thread })
    }

    /// Begins to accept.
    pub(super) async fn accept_from(&self, socket: Listening, listener: Arc<Listener>) -> std::io::Result<Accepting> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let gone = || std::io::Error::other("the accept thread has ended");
        self.requests.send(AcceptRequest { socket, listener, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Accepts nothing more, and waits for the thread.
    pub(super) fn stop(self) {
        drop(self.requests);
        // A panic was logged by the panic hook.
        let _ended = self.thread.join();
    }
}

/// Open data listeners: by bind, and by occurrence where several take any port.
pub(super) type Listeners = BTreeMap<(Bind, usize), Accepting>;

/// The key of each configured listener among [`Listeners`].
pub(super) fn listener_keys(listeners: &[ListenerSettings]) -> Vec<(Bind, usize)> {
    let mut keys: Vec<(Bind, usize)> = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let occurrence = keys.iter().filter(|(bind, _)| *bind == listener.bind).count();
        keys.push((listener.bind.clone(), occurrence));
    }
    keys
}
