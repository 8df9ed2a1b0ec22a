//! Label values as small numbers: interned once when a configuration is compiled, never hashed on the request path.
//!
//! Owns the closed sets that labels come from. Must not know what is counted.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use parking_lot::RwLock;

/// What every set calls the values beyond its bound.
const OTHER: &str = "other";

/// Most listeners, environments or upstreams that get a label of their own in the life of a process.
const MAX_NAMES: usize = 1000;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub(super) u32);

        impl $name {
            /// All values beyond the bound of the set, together: `other`.
            pub const OTHER: Self = Self(0);

            pub(super) fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

label!(
    /// A value of the `route` label.
    RouteLabel
);
label!(
    /// A value of the `listener` label.
    ListenerLabel
);
label!(
    /// A value of the `environment` label.
    EnvironmentLabel
);
label!(
    /// A value of the `upstream` label.
    UpstreamLabel
);

impl RouteLabel {
    /// Requests that no route answers: `none`.
    pub const NONE: Self = Self(1);
}

impl EnvironmentLabel {
    /// Decisions without a verified key: `none`.
    pub const NONE: Self = Self(1);
}

/// Names to numbers and back. Append-only: a number means the same name for the life of the process.
#[derive(Debug)]
pub(super) struct Interner {
    inner: RwLock<Names>,
}

#[derive(Debug)]
struct Names {
    by_number: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
    reserved: usize,
    most: usize,
}

impl Interner {
    /// A set of at most `most` names, beside `other` (number 0) and `reserved` (from 1).
    fn new(reserved: &[&str], most: usize) -> Self {
        let mut names = Names { by_number: Vec::new(), by_name: HashMap::new(), reserved: 0, most: usize::MAX };
        for name in std::iter::once(&OTHER).chain(reserved) {
            names.number_of(name);
        }
        names.reserved = names.by_number.len();
        names.most = most;
        Self { inner: RwLock::new(names) }
    }

    /// The number of `name`; a new one is given if the bound allows, else that of `other`.
    pub(super) fn number_of(&self, name: &str) -> u32 {
        self.inner.write().number_of(name)
    }

    /// Changes the bound. Names that have a number keep it.
    pub(super) fn set_most(&self, most: usize) {
        self.inner.write().most = most;
    }

    /// The names by number.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.inner.read().by_number.clone()
    }
}

impl Names {
    fn number_of(&mut self, name: &str) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        if self.by_number.len() - self.reserved >= self.most {
            return 0;
        }
        let Ok(number) = u32::try_from(self.by_number.len()) else { return 0 };
        let name: Arc<str> = name.into();
        self.by_number.push(Arc::clone(&name));
        self.by_name.insert(name, number);
        number
    }
}

/// The sets whose values come from the configuration.
#[derive(Debug)]
pub(super) struct LabelSets {
    pub(super) routes: Interner,
    pub(super) listeners: Interner,
    pub(super) environments: Interner,
    pub(super) upstreams: Interner,
}

impl LabelSets {
    pub(super) fn new(max_routes: usize) -> Self {
        Self {
            routes: Interner::new(&["none"], max_routes),
            listeners: Interner::new(&[], MAX_NAMES),
            environments: Interner::new(&["none"], MAX_NAMES),
            upstreams: Interner::new(&[], MAX_NAMES),
        }
    }
}

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All values.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// The label's text.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

closed_set!(
    /// Whether the route that decided enforces or reports.
    DecisionMode {
        /// Refusals are answered to the client.
        Enforce = "enforce",
        /// Refusals are counted and logged, and the request goes on.
        Report = "report",
    }
);
closed_set!(
    /// What became of a request.
    DecisionResult {
        /// It goes on, with the identity it proved or as anonymous.
        Allowed = "allowed",
        /// It was answered with a refusal.
        Refused = "refused",
        /// It would have been refused, and went on because its route is in report mode.
        Reported = "reported",
    }
);
closed_set!(
    /// What a client's connection is doing.
    ConnectionState {
        /// PROXY header and TLS handshake.
        Handshake = "handshake",
        /// No request is under way.
        Idle = "idle",
        /// At least one request is under way.
        Active = "active",
        /// It was upgraded; bytes pass both ways.
        Tunnel = "tunnel",
    }
);
closed_set!(
    /// Why a client's connection was not taken.
    Shed {
        /// Its listener has as many as it may.
        Listener = "listener",
        /// Its address has as many as it may.
        Address = "address",
        /// The process has no descriptor for it.
        Descriptors = "descriptors",
        /// What is under way holds nearly as much memory as it may.
        Memory = "memory",
    }
);
closed_set!(
    /// What a connection to an upstream is doing.
    UpstreamConnectionState {
        /// It waits in the pool.
        Idle = "idle",
        /// It carries at least one request or a tunnel.
        Active = "active",
    }
);
closed_set!(
    /// Which limit was in a request's way.
    LimitLabel {
        /// The rate of a key.
        Key = "key",
        /// The rate of an owner.
        Owner = "owner",
        /// The rate of a route.
        Route = "route",
        /// Wrong credentials from an address.
        Failures = "failures",
        /// A key's quota of the day.
        KeyDay = "key-day",
        /// A key's quota of the month.
        KeyMonth = "key-month",
        /// An owner's quota of the day.
        OwnerDay = "owner-day",
        /// An owner's quota of the month.
        OwnerMonth = "owner-month",
    }
);
closed_set!(
    /// What was unusual about the use of a key.
    EventLabel {
        /// It was used from a network that it was not known from.
        NewNetwork = "new_network",
        /// Most of its requests were refused, and they were many.
        ManyRefusals = "many_refusals",
        /// It is a secret key, and a browser sent it.
        SecretKeyInBrowser = "secret_key_in_browser",
    }
);
closed_set!(
    /// What became of a request that could have been sent again.
    Retry {
        /// It was.
        Made = "made",
        /// It was not: others were too often of late.
        OverBudget = "over_budget",
    }
);
closed_set!(
    /// How an attempt to replace the running configuration ended.
    Reload {
        /// The new configuration is in force.
        Applied = "success",
        /// The one before is still in force.
        Refused = "failure",
    }
);
/// Values of the `method` label. Methods that are not in RFC 9110 §9 or RFC 5789 are `OTHER`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum MethodLabel {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
    Connect,
    Other,
}

impl MethodLabel {
    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            Method::OPTIONS => Self::Options,
            Method::TRACE => Self::Trace,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Other => "OTHER",
        }
    }
}
