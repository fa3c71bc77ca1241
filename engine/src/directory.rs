//! Who the destinations are: every member this node addresses, with its budget and its epoch.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ringtribe_wire::tribes::Member;

use crate::budget::Budget;
use crate::ids::{BootId, Epoch, Key, Link, MemberId};
use crate::status::Status;
use crate::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock, RwLockReadGuard};

/// What identifies a Tribes member (`MemberImpl.equals`): address, port and unique id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Address bytes in network order, 4 or 16 of them.
    pub host: Vec<u8>,
    /// TCP port.
    pub port: i32,
    /// Tribes unique id.
    pub unique_id: [u8; 16],
}

impl Identity {
    /// The identity inside a decoded member package.
    #[must_use]
    pub fn of(member: &Member<'_>) -> Self {
        Self { host: member.host.to_vec(), port: member.port, unique_id: *member.unique_id }
    }

    /// Where the member listens; `None` if the address has neither 4 nor 16 bytes or the port is
    /// out of range.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let ip = match *self.host.as_slice() {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            ref long => IpAddr::from(<[u8; 16]>::try_from(long).ok()?),
        };
        let port = u16::try_from(self.port).ok().filter(|port| *port != 0)?;
        Some(SocketAddr::new(ip, port))
    }

    /// Whether both listen at one address: two lives of one node, or a node and a forgery of it.
    pub(crate) fn shares_address(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

/// One life of a member that speaks Ringtribe's own format, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Which life.
    pub boot_id: BootId,
    /// Feature bits that it offers.
    pub features: u32,
    /// Least version of the own format that it speaks.
    pub version_min: u8,
    /// Highest version of the own format that it speaks.
    pub version_max: u8,
}

/// How a Ringtribe member was when it last spoke of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Age of its oldest delivery without outcome, ms: a hung application behind a live engine.
    pub oldest_unfinished_ms: u32,
    /// It announces itself; else it is starting or leaving.
    pub ready: bool,
    /// It wants no new messages.
    pub draining: bool,
    /// Members that it sees, itself included; 0 if it does not learn members.
    pub members_count: u16,
    /// Hash of these.
    pub view_hash: u64,
}

/// A member and everything that belongs to one life of the link to it.
#[derive(Debug)]
pub struct MemberEntry {
    /// Its handle.
    pub id: MemberId,
    /// Who it is.
    pub identity: Identity,
    /// Where it listens.
    pub address: SocketAddr,
    /// The link to it; no two entries of one directory share its epoch.
    pub link: Link,
    /// What may be queued for it.
    pub budget: Arc<Budget>,
    /// The member package as last heard (`MemberImpl.getData`).
    package: RwLock<Arc<[u8]>>,
    incarnation: OnceLock<Incarnation>,
    vitals: Mutex<Vitals>,
    still_ms: AtomicU32,
    ended: AtomicU16,
    shown: AtomicBool,
    /// Messages that the member missed because an epoch ended, over all epochs of its incarnation;
    /// `None` in the first epoch.
    pub after_cut: OnceLock<Arc<AtomicU64>>,
    refused: Box<[Refused]>,
    /// Messages handed to connections that were lost before anything proved their arrival.
    pub unconfirmed_count: AtomicU64,
}

/// Messages of one stream that found no room in time, since the last message that did.
#[derive(Debug, Default)]
struct Refused {
    /// Whether there are some; the worker looks before each message that it sends.
    some: AtomicBool,
    /// How many, and the key of the last on the wire, 0 for none.
    state: Mutex<(u64, u64)>,
}

/// Not cut. Outside the range of [`Status`].
const LIVE: u16 = u16::MAX;

impl MemberEntry {
    /// Why the epoch ended; `None` while it lives.
    #[must_use]
    pub fn ended(&self) -> Option<Status> {
        Status::from_number(self.ended.load(Ordering::Acquire))
    }

    /// The member package as last heard.
    #[must_use]
    pub fn package(&self) -> Arc<[u8]> {
        Arc::clone(&self.package.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the member package (its payload or alive time changed).
    pub fn set_package(&self, package: Arc<[u8]>) {
        *self.package.write().unwrap_or_else(PoisonError::into_inner) = package;
    }

    /// Whether the application has taken the event that announces the member.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Acquire)
    }

    pub(crate) fn set_shown(&self) {
        self.shown.store(true, Ordering::Release);
    }

    /// Notes that a message of a stream found no room in time.
    pub(crate) fn refused(&self, stream: u16, key: Option<Key>) {
        if let Some(refused) = self.refused.get(usize::from(stream)) {
            let mut state = refused.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = (state.0 + 1, Key::to_wire(key));
            // Who has a message behind this one hands it to the worker after this, so that the worker
            // sees it then.
            refused.some.store(true, Ordering::Relaxed);
        }
    }

    /// Takes what was noted for a stream: how many, and the key of the last if there was one only.
    pub(crate) fn take_refused(&self, stream: u16) -> Option<(u64, u64)> {
        let refused = self.refused.get(usize::from(stream))?;
        if !refused.some.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = refused.state.lock().unwrap_or_else(PoisonError::into_inner);
        refused.some.store(false, Ordering::Relaxed);
        let (count, key) = std::mem::take(&mut *state);
        (count > 0).then_some((count, if count == 1 { key } else { 0 }))
    }

    /// Which life of the member this is and what it speaks; `None` as long as all that is known of
    /// it is the Tribes format.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.get().copied()
    }

    /// The boot id of [`MemberEntry::incarnation`].
    #[must_use]
    pub fn boot_id(&self) -> Option<BootId> {
        self.incarnation().map(|incarnation| incarnation.boot_id)
    }

    /// Notes which life this is. Returns false, and changes nothing, if the entry is another one.
    pub fn set_incarnation(&self, incarnation: Incarnation) -> bool {
        self.incarnation.get_or_init(|| incarnation).boot_id == incarnation.boot_id
    }

    /// How the member was when it last spoke of itself; all zero for a stock member.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        *self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long no delivery had ended there, as its last echo says, ms; 0: nothing waited there.
    pub(crate) fn still_ms(&self) -> u32 {
        self.still_ms.load(Ordering::Relaxed)
    }

    /// An echo was answered.
    pub(crate) fn set_still_ms(&self, still_ms: u32) {
        self.still_ms.store(still_ms, Ordering::Relaxed);
    }

    /// Replaces [`MemberEntry::vitals`].
    pub fn set_vitals(&self, vitals: Vitals) {
        *self.vitals.lock().unwrap_or_else(PoisonError::into_inner) = vitals;
    }
}

/// All destinations. Read by callers, written by control.
#[derive(Debug)]
pub struct Directory {
    state: RwLock<State>,
    budget_bytes: usize,
    streams_count: u16,
    here: BootId,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    by_identity: BTreeMap<Identity, MemberId>,
    epochs: u64,
    /// Incarnations whose epoch ended, with what they missed; bounded.
    cut: BTreeMap<BootId, Arc<AtomicU64>>,
    /// Members that membership dropped, and when; bounded.
    gone: BTreeMap<Identity, Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    entry: Option<Arc<MemberEntry>>,
}

/// Most destinations at a time; a flood of forged members must not grow memory without bound.
pub const MAX_MEMBERS_COUNT: usize = 4096;

/// For so long a member that membership dropped is not entered by hand: who still sends to it means
/// the one that went, and an entry made for him would stay for ever.
const GONE_FOR: Duration = Duration::from_secs(60);

impl Directory {
    /// The empty directory of the incarnation `here`, whose members get `budget_bytes` each
    /// (maxQueueSize) and `streams_count` streams.
    #[must_use]
    pub fn new(here: BootId, budget_bytes: usize, streams_count: u16) -> Self {
        Self { state: RwLock::default(), budget_bytes, streams_count, here }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of `identity`, made if there is none. `None` if the address is unusable or
    /// [`MAX_MEMBERS_COUNT`] is reached.
    #[must_use]
    pub fn enter(&self, identity: &Identity, package: &[u8]) -> Option<Arc<MemberEntry>> {
        if let Some(entry) = self.find(identity) {
            return Some(entry);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.gone.remove(identity);
        self.insert(&mut state, identity, package)
    }

    /// As [`Self::enter`], for a member that membership need not know.
    ///
    /// # Errors
    /// [`Status::StaleMember`]: membership dropped it less than a minute ago;
    /// [`Status::BadArgument`]: as [`Self::enter`].
    pub fn enter_by_hand(
        &self,
        identity: &Identity,
        package: &[u8],
    ) -> Result<Arc<MemberEntry>, Status> {
        if let Some(entry) = self.find(identity) {
            return Ok(entry);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.gone.get(identity).is_some_and(|since| since.elapsed() < GONE_FOR) {
            return Err(Status::StaleMember);
        }
        self.insert(&mut state, identity, package).ok_or(Status::BadArgument)
    }

    /// Membership drops a member; to be told before [`Self::cut`].
    pub fn went(&self, identity: &Identity) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.gone.retain(|_, since| since.elapsed() < GONE_FOR);
        if state.gone.len() >= MAX_MEMBERS_COUNT {
            state.gone.pop_first();
        }
        state.gone.insert(identity.clone(), Instant::now());
    }

    fn insert(
        &self,
        state: &mut State,
        identity: &Identity,
        package: &[u8],
    ) -> Option<Arc<MemberEntry>> {
        // Two may have looked at once.
        if let Some(id) = state.by_identity.get(identity) {
            return state.slots.get(id.index as usize)?.entry.clone();
        }
        let address = identity.address()?;
        let free = state.slots.iter().position(|slot| slot.entry.is_none());
        let index = free.unwrap_or(state.slots.len());
        if index == MAX_MEMBERS_COUNT {
            return None;
        }
        if index == state.slots.len() {
            state.slots.push(Slot::default());
        }
        state.epochs += 1;
        let epoch = Epoch(state.epochs);
        let slot = &mut state.slots[index];
        slot.generation = (slot.generation + 1) & 0x7fff_ffff;
        let id = MemberId { index: u32::try_from(index).ok()?, generation: slot.generation };
        let entry = Arc::new(MemberEntry {
            id,
            identity: identity.clone(),
            address,
            link: Link { from: self.here, to: id, epoch },
            budget: Budget::new(self.budget_bytes),
            package: RwLock::new(package.into()),
            incarnation: OnceLock::new(),
            vitals: Mutex::default(),
            still_ms: AtomicU32::new(0),
            ended: AtomicU16::new(LIVE),
            shown: AtomicBool::new(false),
            after_cut: OnceLock::new(),
            refused: (0..self.streams_count).map(|_| Refused::default()).collect(),
            unconfirmed_count: AtomicU64::new(0),
        });
        slot.entry = Some(Arc::clone(&entry));
        state.by_identity.insert(identity.clone(), id);
        Some(entry)
    }

    /// The entry of a handle; `None` if the member has gone.
    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<Arc<MemberEntry>> {
        let state = self.read();
        let slot = state.slots.get(id.index as usize)?;
        slot.entry.as_ref().filter(|entry| entry.id == id).cloned()
    }

    /// The entry of an identity.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Option<Arc<MemberEntry>> {
        let id = *self.read().by_identity.get(identity)?;
        self.get(id)
    }

    /// The entry of an incarnation.
    #[must_use]
    pub fn find_boot(&self, boot_id: BootId) -> Option<Arc<MemberEntry>> {
        let state = self.read();
        let mut entries = state.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.find(|entry| entry.boot_id() == Some(boot_id)).cloned()
    }

    /// Ends the epoch of a member: no new message is admitted, who waits for room is woken. The
    /// workers must be told, so that they fail what is queued.
    #[must_use]
    pub fn cut(&self, id: MemberId, why: Status) -> Option<Arc<MemberEntry>> {
        let entry = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let slot = state.slots.get_mut(id.index as usize)?;
            if slot.entry.as_ref()?.id != id {
                return None;
            }
            let entry = slot.entry.take()?;
            state.by_identity.remove(&entry.identity);
            if let Some(boot_id) = entry.boot_id() {
                if state.cut.len() >= MAX_MEMBERS_COUNT {
                    state.cut.pop_first();
                }
                state.cut.entry(boot_id).or_default();
            }
            entry
        };
        entry.ended.store(why.number(), Ordering::Release);
        entry.budget.close();
        Some(entry)
    }

    /// What an incarnation missed because epochs of the link to it ended; `None` if none did.
    #[must_use]
    pub fn missed(&self, boot_id: BootId) -> Option<Arc<AtomicU64>> {
        self.read().cut.get(&boot_id).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn members_count(&self) -> usize {
        self.read().by_identity.len()
    }

    /// Incarnations that are remembered because an epoch of the link to them ended.
    #[must_use]
    pub fn cut_count(&self) -> usize {
        self.read().cut.len()
    }

    /// All entries, in no promised order.
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<MemberEntry>> {
        self.read().slots.iter().filter_map(|slot| slot.entry.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(port: i32) -> Identity {
        Identity { host: vec![127, 0, 0, 1], port, unique_id: [port.to_be_bytes()[3]; 16] }
    }

    #[test]
    fn a_member_that_comes_back_is_another_handle_and_another_epoch() {
        let directory = Directory::new(BootId([7; 16]), 1000, 2);
        let first = directory.enter(&identity(4000), b"p").expect("usable");
        assert_eq!(directory.enter(&identity(4000), b"p").expect("known").id, first.id);
        assert!(first.ended().is_none());
        let cut = directory.cut(first.id, Status::Cut).expect("live");
        assert_eq!(cut.ended(), Some(Status::Cut));
        assert!(directory.cut(first.id, Status::Cut).is_none(), "cut once");
        let second = directory.enter(&identity(4000), b"p").expect("usable");
        assert_eq!(second.id.index, first.id.index);
        assert!(second.link.epoch > first.link.epoch);
        assert!(directory.get(first.id).is_none(), "the old handle is stale");
        assert_eq!(MemberId::from_bits(second.id.to_bits()), second.id);
    }

    #[test]
    fn an_entry_is_one_incarnation_and_is_found_by_it() {
        let directory = Directory::new(BootId([7; 16]), 1000, 2);
        let life = |id| Incarnation {
            boot_id: BootId([id; 16]),
            features: 0,
            version_min: 1,
            version_max: 1,
        };
        let entry = directory.enter(&identity(4000), b"p").expect("usable");
        assert!(directory.find_boot(BootId([1; 16])).is_none());
        assert!(entry.set_incarnation(life(1)) && entry.set_incarnation(life(1)));
        assert!(!entry.set_incarnation(life(2)), "another life is another entry");
        assert_eq!(entry.boot_id(), Some(BootId([1; 16])));
        assert_eq!(directory.find_boot(BootId([1; 16])).expect("known").id, entry.id);
        let _ = directory.cut(entry.id, Status::Cut);
        assert!(directory.find_boot(BootId([1; 16])).is_none());
    }

    #[test]
    fn unusable_addresses_are_refused() {
        let directory = Directory::new(BootId([7; 16]), 1000, 2);
        assert!(directory.enter(&identity(0), b"").is_none());
        assert!(directory.enter(&identity(70000), b"").is_none());
        let odd = Identity { host: vec![1, 2, 3], port: 1, unique_id: [0; 16] };
        assert!(directory.enter(&odd, b"").is_none());
    }

    #[test]
    fn who_went_is_not_brought_back_by_a_message_to_him() {
        let directory = Directory::new(BootId([7; 16]), 1000, 2);
        let entry = directory.enter(&identity(4000), b"").expect("usable");
        assert_eq!(directory.enter_by_hand(&identity(4000), b"").expect("known").id, entry.id);
        directory.went(&identity(4000));
        let _ = directory.cut(entry.id, Status::Cut);
        let refused = directory.enter_by_hand(&identity(4000), b"").expect_err("it has gone");
        assert_eq!((refused, directory.members_count()), (Status::StaleMember, 0));
        assert!(directory.enter_by_hand(&identity(4001), b"").is_ok(), "nobody knew it");
        // Membership sees it again.
        let entry = directory.enter(&identity(4000), b"").expect("usable");
        let _ = directory.cut(entry.id, Status::Cut);
        assert!(directory.enter_by_hand(&identity(4000), b"").is_ok(), "it was not dropped");
    }

    #[test]
    fn many_enter_one_member_once() {
        let directory = Directory::new(BootId([7; 16]), 1000, 2);
        for port in 4000..4200 {
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        assert!(directory.enter(&identity(port), b"").is_some());
                    });
                }
            });
        }
        assert_eq!(directory.entries().len(), directory.members_count());
    }
}
