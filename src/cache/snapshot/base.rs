//! The base: the whole set at one revision, or at a little more than that.
//!
//! It is written beside the writer of the set. What is read late may hold changes that came meanwhile, so whoever reads it
//! back must apply every change after its revision to it, which the journals hold; all changes say how something is, not
//! by what it differs, so applying one again does nothing.
//!
//! The file is a row of frames, each its kind in one byte, its length in four (the least significant first), and its
//! payload; behind the last one stands the seal over all bytes before. Names come after the keys, as the set gives a name
//! its number before a key has it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{WrittenHead, WrittenOwner};
use super::seal::{Link, SealKey, Sealing, SnapshotSeal};
use crate::cache::directory::Directory;
use crate::cache::key_map::KeyMap;
use crate::cache::slot::{KeySlot, STORED_SLOT, StoredSlot};
use crate::domain::{KeyHash, KeyId, StoreHead, Timestamp};
use crate::store::{OwnerFacts, Profile};

/// The version of this form; another one is not read but made anew.
const FORM: u32 = 1;

/// What a file begins with.
const MAGIC: &[u8; 16] = b"portcullis base\n";

/// Longer frames are none of ours.
const LONGEST_FRAME: usize = 64 << 20;

/// Slots in a frame: 256 KiB.
const SLOTS_AT_ONCE: usize = 4_096;

/// Names in a frame.
const NAMES_AT_ONCE: usize = 1_000;

/// Kinds of frames.
mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const SLOTS: u8 = 2;
    pub(super) const LINEAGES: u8 = 3;
    pub(super) const GRACES: u8 = 4;
    pub(super) const ENVIRONMENTS: u8 = 5;
    pub(super) const PROFILES: u8 = 6;
    pub(super) const OWNERS: u8 = 7;
    pub(super) const END: u8 = 8;
}

/// What a base says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BaseHead {
    /// Every change up to here is in it.
    pub(super) head: StoreHead,
    /// When the store confirmed that.
    pub(super) as_of: Timestamp,
    /// Whether the store was ever found to have lost commits.
    pub(super) diverged: bool,
    /// The journal that holds what came after.
    pub(super) journal: u64,
    /// The link that this journal begins with.
    pub(super) chain: Link,
}

#[derive(Serialize, Deserialize)]
struct WrittenBaseHead {
    form: u32,
    key: Option<String>,
    head: WrittenHead,
    as_of: i64,
    diverged: bool,
    journal: u64,
    chain: Link,
}

/// Writes a base.
pub(super) struct BaseWriter<W> {
    out: W,
    sealing: Sealing,
    len: u64,
}

impl<W: Write> BaseWriter<W> {
    /// Begins with what a base says of itself.
    pub(super) fn begin(out: W, key: &SealKey, head: &BaseHead) -> io::Result<Self> {
        let mut writer = Self { out, sealing: key.begin(), len: 0 };
        writer.bytes(MAGIC)?;
        let BaseHead { head, as_of, diverged, journal, chain } = *head;
        writer.json(
            kind::HEAD,
            &WrittenBaseHead {
                form: FORM,
                key: key.name().map(str::to_owned),
                head: WrittenHead::of(head),
                as_of: as_of.unix_ms(),
                diverged,
                journal,
                chain,
            },
        )?;
        Ok(writer)
    }

    /// Writes every key of a map. `between` is called now and then, so that other work need not wait for the end.
    pub(super) fn keys<E: From<io::Error>>(
        &mut self,
        map: &KeyMap,
        mut between: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut frame = Vec::with_capacity(SLOTS_AT_ONCE * STORED_SLOT);
        let written = map.for_each_giving_way(|hash, slot| {
            frame.extend_from_slice(&StoredSlot::of(hash, slot).to_bytes());
            if frame.len() == SLOTS_AT_ONCE * STORED_SLOT {
                let written = self.frame(kind::SLOTS, &frame).map_err(E::from).and_then(|()| between());
                frame.clear();
                return written.map_or_else(ControlFlow::Break, ControlFlow::Continue);
            }
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(error) = written {
            return Err(error);
        }
        self.frame(kind::SLOTS, &frame)?;
        self.pairs(kind::LINEAGES, map.lineages())?;
        self.pairs(kind::GRACES, map.ends_on_use())?;
        Ok(())
    }

    /// Writes the names behind the numbers, as they are after [`Self::keys`].
    pub(super) fn names(&mut self, directory: &Directory) -> io::Result<()> {
        self.list(kind::ENVIRONMENTS, directory.environments().iter())?;
        self.list(kind::PROFILES, directory.profiles().iter())?;
        self.list(kind::OWNERS, directory.owners().iter().map(|owner| WrittenOwner::of(owner.facts())))
    }

    /// Ends it; returns how long it is.
    pub(super) fn end(mut self) -> io::Result<u64> {
        self.frame(kind::END, &[])?;
        self.out.write_all(&self.sealing.end())?;
        self.out.flush()?;
        Ok(self.len + 32)
    }

    fn pairs(&mut self, kind: u8, pairs: Vec<(KeyId, KeyId)>) -> io::Result<()> {
        for pairs in pairs.chunks(SLOTS_AT_ONCE) {
            let bytes: Vec<u8> =
                pairs.iter().flat_map(|(id, other)| [id.to_bytes(), other.to_bytes()]).flatten().collect();
            self.frame(kind, &bytes)?;
        }
        Ok(())
    }

    fn list<T: Serialize>(&mut self, kind: u8, mut entries: impl Iterator<Item = T>) -> io::Result<()> {
        loop {
            let some: Vec<T> = entries.by_ref().take(NAMES_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.json(kind, &some)?;
        }
    }

    fn json<T: Serialize>(&mut self, kind: u8, value: &T) -> io::Result<()> {
        self.frame(kind, &serde_json::to_vec(value)?)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
        self.bytes(&[kind, length[0], length[1], length[2], length[3]])?;
        self.bytes(payload)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sealing.cover(bytes);
        self.len += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A base whose seal was found to be right.
pub(in crate::cache) struct Base {
    pub(super) head: BaseHead,
    pub(in crate::cache) environments: Vec<Arc<str>>,
    pub(in crate::cache) profiles: Vec<Arc<Profile>>,
    pub(in crate::cache) owners: Vec<OwnerFacts>,
    /// Each key that succeeded another, and the first of its line.
    pub(in crate::cache) lineages: Vec<(KeyId, KeyId)>,
    /// Each key whose first use ends the grace of another, and that other.
    pub(in crate::cache) graces: Vec<(KeyId, KeyId)>,
    /// How many keys there are.
    pub(in crate::cache) keys: usize,
    pub(super) len: u64,
    file: File,
}

/// Why a file is not used, for people.
pub(in crate::cache) type Unreadable = String;

impl Base {
    /// Reads a base, but for its keys, and checks its seal. Blocks.
    pub(super) fn read(file: File, seal: &SnapshotSeal) -> Result<Self, Unreadable> {
        let len = file.metadata().map_err(|error| error.to_string())?.len();
        let mut frames = Frames::begin(&file)?;
        let (kind, first) = frames.next()?;
        let first = first.to_vec();
        let head = (kind == kind::HEAD).then(|| serde_json::from_slice::<Value>(&first).ok()).flatten();
        let head = head.ok_or("it does not begin as a base does")?;
        // Looked at before anything else, which another version may write otherwise.
        if head.get("form").and_then(Value::as_u64) != Some(u64::from(FORM)) {
            return Err("another version of portcullis wrote it".to_owned());
        }
        let head: WrittenBaseHead = serde_json::from_value(head).map_err(|error| error.to_string())?;
        let key = seal.named(head.key.as_deref()).ok_or_else(|| match &head.key {
            Some(name) => format!("it is sealed with the pepper `{name}`, which is not configured"),
            None => "it is not sealed with a pepper, and one is configured".to_owned(),
        })?;
        let mut base = Self {
            head: BaseHead {
                head: head.head.head(),
                as_of: Timestamp::from_unix_ms(head.as_of),
                diverged: head.diverged,
                journal: head.journal,
                chain: head.chain,
            },
            environments: Vec::new(),
            profiles: Vec::new(),
            owners: Vec::new(),
            lineages: Vec::new(),
            graces: Vec::new(),
            keys: 0,
            len,
            file: file.try_clone().map_err(|error| error.to_string())?,
        };
        frames.seal_from_here(key.begin(), &first);
        base.take_frames(&mut frames)?;
        frames.check_seal()?;
        Ok(base)
    }

    fn take_frames(&mut self, frames: &mut Frames<'_>) -> Result<(), Unreadable> {
        fn list<T: for<'de> Deserialize<'de>>(payload: &[u8]) -> Result<Vec<T>, Unreadable> {
            serde_json::from_slice(payload).map_err(|error| error.to_string())
        }
        loop {
            let (kind, payload) = frames.next()?;
            match kind {
                kind::SLOTS => self.keys += payload.len() / STORED_SLOT,
                kind::LINEAGES => self.lineages.extend(pairs(payload)),
                kind::GRACES => self.graces.extend(pairs(payload)),
                kind::ENVIRONMENTS => self.environments.extend(list(payload)?),
                kind::PROFILES => self.profiles.extend(list(payload)?),
                kind::OWNERS => self.owners.extend(list(payload)?.into_iter().map(WrittenOwner::facts)),
                kind::END => return Ok(()),
                other => return Err(format!("it holds a frame of kind {other}")),
            }
        }
    }

    /// Hands over every key; the numbers of names are those of the lists here. Blocks.
    pub(in crate::cache) fn for_each_key(
        &self,
        mut visit: impl FnMut(&KeyHash, KeySlot) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let mut frames = Frames::begin(&self.file)?;
        loop {
            let (kind, payload) = frames.next()?;
            match kind {
                kind::SLOTS => {
                    for bytes in payload.as_chunks::<STORED_SLOT>().0 {
                        let stored = StoredSlot::from_bytes(bytes);
                        if let Some(slot) = stored.read() {
                            visit(&stored.hash(), slot)?;
                        }
                    }
                }
                kind::END => return Ok(()),
                _ => {}
            }
        }
    }
}

fn pairs(payload: &[u8]) -> impl Iterator<Item = (KeyId, KeyId)> {
    let (ids, _) = payload.as_chunks::<16>();
    ids.as_chunks::<2>().0.iter().map(|[id, other]| (KeyId::from_bytes(*id), KeyId::from_bytes(*other)))
}

/// The frames of a file, one after the other.
struct Frames<'a> {
    input: BufReader<&'a File>,
    sealing: Option<Sealing>,
    /// The one read last.
    payload: Vec<u8>,
}

impl<'a> Frames<'a> {
    fn begin(mut file: &'a File) -> Result<Self, Unreadable> {
        file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
        let mut frames = Self { input: BufReader::with_capacity(64 << 10, file), sealing: None, payload: Vec::new() };
        let mut magic = [0; MAGIC.len()];
        frames.fill(&mut magic)?;
        if magic == *MAGIC { Ok(frames) } else { Err("it is no base of a snapshot".to_owned()) }
    }

    /// The seal covers what was read so far, which is the magic and one frame, and everything that is read from here on.
    fn seal_from_here(&mut self, mut sealing: Sealing, first: &[u8]) {
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_le_bytes();
        for part in [MAGIC.as_slice(), &[kind::HEAD], &length, first] {
            sealing.cover(part);
        }
        self.sealing = Some(sealing);
    }

    fn next(&mut self) -> Result<(u8, &[u8]), Unreadable> {
        let mut start = [0; 5];
        self.fill(&mut start)?;
        let [kind, length @ ..] = start;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST_FRAME {
            return Err(format!("it holds a frame of {length} bytes"));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        let filled = self.fill(&mut payload);
        self.payload = payload;
        filled?;
        if let Some(sealing) = &mut self.sealing {
            sealing.cover(&start);
            sealing.cover(&self.payload);
        }
        Ok((kind, &self.payload))
    }

    fn check_seal(mut self) -> Result<(), Unreadable> {
        let mut link = Link::default();
        self.fill(&mut link)?;
        let more = self.input.read(&mut [0]).map_err(|error| error.to_string())?;
        if more == 0 && self.sealing.is_some_and(|sealing| sealing.end() == link) {
            Ok(())
        } else {
            Err("its seal is wrong: it was damaged, or changed by somebody else".to_owned())
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        })
    }
}
