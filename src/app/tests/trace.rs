//! What happened, in order: kept for people who look for the cause of a failure, and summed up to compare two runs.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;

use crate::domain::time;

/// How much is kept of each gateway, and of what concerns all of them.
const KEPT: usize = 60;

/// Something that happened, at a gateway or to all.
#[derive(Clone, Copy, Hash)]
pub(super) enum Event {
    Starts,
    Dies,
    Leaves,
    /// How its way to the store is from now on.
    Way(Way),
    /// A call failed.
    Fails(Call),
    /// A call takes so many milliseconds longer.
    IsLate(Call, u64),
    /// A notification of this revision came.
    IsTold(u64),
    /// A notification of this revision was lost.
    IsNotTold(u64),
    /// It decides by this revision, and waits for the next.
    StandsAt(u64),
    /// It asked for the newest revision, and this one was told to it.
    Hears(u64),
    /// The store notes that it acknowledges this revision.
    Acknowledges(Option<u64>),
    /// It refuses this key for the first time, so many milliseconds after the commit.
    Refuses(u32, u64),
    /// What was committed.
    Commits(u64, Change),
    /// The commits after this revision are lost.
    FailsOver(u64),
    /// Somebody waits for this revision at this gateway.
    Waits(u64, usize),
    /// And is told: whether it is complete, how many acknowledged it, how many did not.
    IsAnswered(u64, bool, usize, usize),
}

/// How a way is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Way {
    Open,
    /// Answers take seconds.
    Slow,
    /// Nothing arrives, and nothing comes back.
    Silent,
    /// What is asked arrives, and no answer comes back.
    Deaf,
    /// Every call fails at once.
    Refusing,
}

/// What a gateway calls the store for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Call {
    Head,
    Changes,
    Load,
    Report,
    Nodes,
    Strike,
    Tidy,
    Write,
}

/// What is changed, with the number of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Change {
    Create { first: u32, keys: u32 },
    Revoke(u32),
    ReplaceSecret(u32),
    Disable(u32),
    Enable(u32),
    Suspend(u32),
    Resume(u32),
    ForgetHistory,
    ForgetNode { gateway: usize, life: u64 },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Starts => f.write_str("starts"),
            Self::Dies => f.write_str("is killed"),
            Self::Leaves => f.write_str("leaves"),
            Self::Way(way) => write!(f, "its way to the store: {way:?}"),
            Self::Fails(call) => write!(f, "{call:?} fails"),
            Self::IsLate(call, ms) => write!(f, "{call:?} is {ms} ms late"),
            Self::IsTold(revision) => write!(f, "is told of {revision}"),
            Self::IsNotTold(revision) => write!(f, "is not told of {revision}: the notification is lost"),
            Self::StandsAt(revision) => write!(f, "stands at {revision}"),
            Self::Hears(revision) => write!(f, "hears that the newest is {revision}"),
            Self::Acknowledges(revision) => write!(f, "acknowledges {revision:?}"),
            Self::Refuses(key, ms) => write!(f, "refuses key {key}, {ms} ms after the commit"),
            Self::Commits(revision, change) => write!(f, "commit {revision}: {change:?}"),
            Self::FailsOver(revision) => write!(f, "the store fails over; what came after {revision} is lost"),
            Self::Waits(revision, at) => write!(f, "somebody waits for {revision} at gateway {at}"),
            Self::IsAnswered(revision, complete, acknowledged, pending) => {
                write!(f, "{revision} is complete: {complete}; {acknowledged} acknowledged, {pending} pending")
            }
        }
    }
}

/// See the module.
pub(super) struct Trace(Mutex<Kept>);

struct Kept {
    sum: DefaultHasher,
    noted: u64,
    fleet: VecDeque<Line>,
    gateways: Vec<VecDeque<Line>>,
}

#[derive(Clone, Copy)]
struct Line {
    number: u64,
    ms: u64,
    gateway: Option<usize>,
    event: Event,
}

/// Milliseconds of simulated time.
pub(super) fn now_ms() -> u64 {
    u64::try_from(time::now().unix_ms()).unwrap()
}

impl Trace {
    pub(super) fn of(gateways: usize) -> Self {
        Self(Mutex::new(Kept {
            sum: DefaultHasher::new(),
            noted: 0,
            fleet: VecDeque::new(),
            gateways: vec![VecDeque::new(); gateways],
        }))
    }

    /// Notes what happened now, to a gateway or to all.
    pub(super) fn note(&self, gateway: Option<usize>, event: Event) {
        let mut kept = self.0.lock();
        let ms = now_ms();
        (ms, gateway, event).hash(&mut kept.sum);
        kept.noted += 1;
        let line = Line { number: kept.noted, ms, gateway, event };
        // A poll that finds nothing would push out everything else.
        if matches!(event, Event::Hears(_)) {
            return;
        }
        let lines = match gateway {
            Some(number) => &mut kept.gateways[number],
            None => &mut kept.fleet,
        };
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// A sum over all that was noted, and how much that was.
    pub(super) fn sum(&self) -> (u64, u64) {
        let kept = self.0.lock();
        (kept.sum.finish(), kept.noted)
    }

    /// The last that happened to a gateway, and to all.
    pub(super) fn story(&self, gateway: Option<usize>, began: u64) -> String {
        let kept = self.0.lock();
        let own = gateway.map(|number| kept.gateways[number].iter()).into_iter().flatten();
        let mut lines: Vec<Line> = kept.fleet.iter().chain(own).copied().collect();
        lines.sort_by_key(|line| line.number);
        let show = |Line { ms, gateway, event, .. }: Line| {
            let who = gateway.map_or_else(|| "the fleet".to_owned(), |number| format!("gateway {number}"));
            format!("  {:>10.3} s  {who:<11} {event}\n", (ms - began) as f64 / 1_000.0)
        };
        lines.into_iter().map(show).collect()
    }
}
