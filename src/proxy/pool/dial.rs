//! Opening connections.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::counts::{Dialing, Open};
use super::{H1Lease, H2Lease, Lease, NO_TUNNEL, TargetPool};
use crate::domain::time::monotonic_now;
use crate::proxy::connect::{self, Opened};
use crate::proxy::observe::Observer;
use crate::proxy::settings::Protocol;
use crate::proxy::target::Upstream;
use crate::proxy::timer::{Elapsed, Timers};
use crate::reply::Failure;
use crate::telemetry::UpstreamConnectionState;
use crate::wire::{Buffers, is_exhausted};

/// Opening one connection: a task of its own, so that a request that found another one meanwhile need not see it through.
pub(super) struct Dial {
    pub(super) pool: Rc<TargetPool>,
    pub(super) timers: Rc<Timers>,
    pub(super) observer: Rc<Observer>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) protocol: Protocol,
    pub(super) is_trial: bool,
    pub(super) most: Duration,
    pub(super) _dialing: Dialing,
}

impl Dial {
    /// Opens it, and hands it over or keeps it for others.
    pub(super) async fn run(self, permit: OwnedSemaphorePermit, hand_over: oneshot::Sender<Result<Lease, Failure>>) {
        let lease = self.open(permit).await;
        // Whoever wanted it may not wait for it any longer.
        let Err(Ok(lease)) = hand_over.send(lease) else { return };
        if self.is_trial {
            self.pool.target.standing.may_be_tried(monotonic_now());
        }
        match lease {
            Lease::H1(lease) => lease.give_back(self.timers.now_ms()),
            // It is among the shared ones already.
            Lease::H2(lease) => drop(lease),
        }
    }

    async fn open(&self, permit: OwnedSemaphorePermit) -> Result<Lease, Failure> {
        let Self { pool, timers, observer, upstream, protocol, .. } = self;
        let target = &pool.target;
        let label = observer.upstream(&upstream.settings.name);
        let gauge = observer.metrics.upstream_connection(label, UpstreamConnectionState::Active);
        let buffers = Rc::clone(&self.buffers);
        let dial = connect::open(&target.endpoint, *protocol, permit, gauge, timers.now_ms(), self.most, buffers);
        let dialed = timers.timer().bound(self.most, dial).await;
        if !matches!(&dialed, Ok(Ok(_))) {
            target.endpoint.addresses.look_again();
        }
        let opened = match dialed {
            Err(Elapsed) => {
                observer.target_failed(upstream, target, self.is_trial);
                Err(Failure::UpstreamTimeout)
            }
            Ok(Err(error)) if is_exhausted(&error) => {
                // That is our trouble: nothing is known of the target.
                tracing::warn!(upstream_target = %target.label, "no descriptor is left for an upstream connection");
                return Err(Failure::UpstreamBusy);
            }
            // No failure of the target: it speaks what it speaks.
            Ok(Err(error))
                if *protocol == Protocol::H1
                    && upstream.settings.protocol == Protocol::Auto
                    && refuses_alpn(&error) =>
            {
                tracing::warn!(upstream_target = %target.label, "the upstream does not speak HTTP/1.1 (ALPN)");
                return Err(NO_TUNNEL);
            }
            Ok(Err(error)) => {
                tracing::warn!(upstream_target = %target.label, %error, "upstream connection failed");
                if !is_ours(&error) {
                    observer.target_failed(upstream, target, self.is_trial);
                }
                Err(Failure::UpstreamUnreachable)
            }
            Ok(Ok(opened)) => Ok(opened),
        };
        let speaks_h2 = matches!(&opened, Ok(Opened::H2(_)));
        if *protocol == Protocol::Auto && opened.is_ok() {
            // What ALPN said once it will say again. In the clear only the request knows (gRPC).
            pool.speaks_h2.set(speaks_h2);
        }
        Ok(match opened? {
            Opened::H1(connection) => Lease::H1(H1Lease {
                connection,
                reused: false,
                opened_ms: timers.now_ms(),
                open: Open::begin(pool),
                pool: Rc::clone(pool),
            }),
            Opened::H2(connection) => {
                pool.shared.borrow_mut().push(connection.clone());
                Lease::H2(H2Lease::take(connection, pool, timers))
            }
        })
    }
}

/// Whether a connection failed for want of something on this machine, which tells nothing about the target.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let own = [Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| own.iter().any(|own| own.raw_os_error() == code))
}

/// Whether a handshake failed because the peer speaks none of the protocols it was offered.
fn refuses_alpn(error: &std::io::Error) -> bool {
    use rustls::{AlertDescription, Error};
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(error, Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol))
}
