//! The local socket: commands of this machine's operator to the running gateway (contract §1).
//!
//! One line of JSON asks, one line answers. The file's mode is 0600, and the peer must be this user or root.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::accounts::actor_of_user;
use super::operations::Process;
use crate::admin::{Operations, ReloadReport};

/// Longest request line.
const MAX_LINE: u64 = 64 * 1024;

/// What can be asked.
#[derive(Debug, serde::Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
enum Ask {
    /// To take the configuration over, or to say what would come of it.
    Reload {
        #[serde(default)]
        dry_run: bool,
    },
    /// What became of a request.
    Explain { request_id: String },
    /// How the processes stand that enforce keys.
    Nodes {},
}

/// Serves until dropped; then the file is removed.
pub(super) struct SocketGuard {
    task: tokio::task::JoinHandle<()>,
    path: PathBuf,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.task.abort();
        // Somebody may have removed it already.
        let _removed = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket and answers on it.
///
/// # Errors
/// When it cannot be opened, for instance because another gateway answers on it.
pub(super) fn serve(path: &Path, process: Arc<Process>) -> io::Result<SocketGuard> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    // A socket file that nobody listens on is what a killed predecessor left behind; any other file is somebody's.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&process)))),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the local socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(SocketGuard { task, path: path.to_owned() })
}

async fn answer(stream: UnixStream, process: Arc<Process>) {
    let own = rustix::process::getuid().as_raw();
    let peer = stream.peer_cred().ok().map(|peer| peer.uid()).filter(|uid| *uid == own || *uid == 0);
    let Some(peer) = peer else {
        tracing::warn!("a local command of another user was refused");
        return;
    };
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let asked = BufReader::new(read.take(MAX_LINE)).read_line(&mut line).await;
    if asked.is_err() {
        return;
    }
    let answer = match serde_json::from_str::<Ask>(&line) {
        Ok(Ask::Reload { dry_run }) => json!(process.reload(actor_of_user(peer), dry_run).await),
        Ok(Ask::Explain { request_id }) => process.explain(&request_id).await,
        Ok(Ask::Nodes {}) => process.nodes().await,
        Err(error) => json!(ReloadReport::refused(format!("not understood: {error}"))),
    };
    let text = format!("{answer}\n");
    // The asker may be gone; a reload stands all the same.
    let _written = write.write_all(text.as_bytes()).await;
}
