//! Tasks of one worker thread.

use std::future::Future;

use super::body::spawn_sending;

/// Spawns onto the worker's own runtime; nothing it runs ever leaves the thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        // The handle is not needed: a connection's task ends with its connection.
        drop(tokio::task::spawn_local(future));
    }
}

/// The same for connections to upstreams: a task that sends a body ends when the body is called back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpstreamExecutor;

impl<F> hyper::rt::Executor<F> for UpstreamExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        spawn_sending(future);
    }
}
