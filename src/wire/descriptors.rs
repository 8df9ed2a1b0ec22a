//! How many sockets of clients and upstreams are open, and how many may be. Descriptors are the process's, so there is one
//! count for all threads: an addition when a socket opens and one when it closes, nothing for a request.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

static OPEN: AtomicUsize = AtomicUsize::new(0);
static ROOM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Most places that are kept for upstreams; of few, a quarter is.
const UPSTREAMS: usize = 1024;

/// Says how many sockets there may be from now on. Those that are open stay.
pub fn set_room_for_sockets(room: usize) {
    ROOM.store(room, Ordering::Relaxed);
}

/// How many sockets of clients and upstreams are open.
pub fn open_sockets() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// A socket's place in the count, for as long as it lives.
#[derive(Debug)]
pub struct SocketPlace(());

impl SocketPlace {
    /// A client's; none when the rest is for upstreams, so that the clients there are can be served.
    pub fn for_client() -> Option<Self> {
        let room = ROOM.load(Ordering::Relaxed);
        Self::within(room - UPSTREAMS.min(room / 4))
    }

    /// One that can be done without; none while a half of the room is taken.
    pub fn to_spare() -> Option<Self> {
        Self::within(ROOM.load(Ordering::Relaxed) / 2)
    }

    /// An upstream's.
    ///
    /// # Errors
    /// What the system would say a little later: see [`is_exhausted`].
    pub fn for_upstream() -> io::Result<Self> {
        let exhausted = || io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        Self::within(ROOM.load(Ordering::Relaxed)).ok_or_else(exhausted)
    }

    fn within(room: usize) -> Option<Self> {
        let place = Self(());
        (OPEN.fetch_add(1, Ordering::Relaxed) < room).then_some(place)
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether it failed because this process, or the machine, has no descriptor left.
pub fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| code == Some(errno.raw_os_error()))
}
