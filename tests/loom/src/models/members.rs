//! What threads say to each other of a member: what was refused, and what was missed.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::{Recorder, explore, identity, life};
use crate::delivery::{PollEnd, Polled, PollerClass};
use crate::directory::Vitals;
use crate::event::Event;
use crate::ids::{BootId, Instant, Key};
use crate::inbox::Inbox;
use crate::protocol::membership::Output;
use crate::shared::{Bounds, Shared};

fn shared() -> Arc<Shared> {
    let bounds = Bounds { worker_count: 1, ..Bounds::default() };
    Shared::new(bounds, BootId([9; 16]), Recorder::new())
}

pub fn loom_refused_messages_are_counted_once_and_named_by_their_own_key() {
    explore(3, || {
        let shared = shared();
        let entry = shared.directory.enter(&identity(1), b"").expect("usable");
        let keys = [Key::of(b"a"), Key::of(b"b")];
        let callers: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let entry = Arc::clone(&entry);
                thread::spawn(move || entry.refused(0, Some(key)))
            })
            .collect();
        let mut taken: Vec<_> = entry.take_refused(0).into_iter().collect();
        for caller in callers {
            caller.join().unwrap();
        }
        taken.extend(entry.take_refused(0));
        match *taken {
            [(2, key)] => assert_eq!(key, 0, "two of them have no key"),
            [(1, one), (1, other)] => {
                let mut named = [one, other];
                let mut meant = keys.map(|key| Key::to_wire(Some(key)));
                named.sort_unstable();
                meant.sort_unstable();
                assert_eq!(named, meant, "each by its own");
            }
            _ => panic!("{taken:?}"),
        }
    });
}

pub fn loom_a_refused_message_is_told_before_the_next_one_of_its_caller() {
    explore(3, || {
        let entry = shared().directory.enter(&identity(1), b"").expect("usable");
        let inbox = Arc::new(Inbox::new(Box::new(|| {})));
        let caller = {
            let (entry, inbox) = (Arc::clone(&entry), Arc::clone(&inbox));
            thread::spawn(move || {
                entry.refused(0, None);
                inbox.push(()).expect("open");
            })
        };
        let other = {
            let entry = Arc::clone(&entry);
            thread::spawn(move || entry.refused(0, None))
        };
        let mut told_count = entry.take_refused(0).map_or(0, |(count, _)| count);
        if inbox.pop().is_some() {
            told_count += entry.take_refused(0).map_or(0, |(count, _)| count);
            assert!(told_count > 0, "the message goes behind it");
        }
        caller.join().unwrap();
        other.join().unwrap();
        told_count += entry.take_refused(0).map_or(0, |(count, _)| count);
        assert_eq!(told_count, 2);
    });
}

/// A stream learns that this node missed messages of a member, while control learns of it.
pub fn loom_what_was_missed_of_a_newcomer_is_told() {
    explore(2, || {
        let shared = shared();
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.gap_from(life(1).boot_id, 3))
        };
        shared.apply(Output::Added {
            identity: identity(1),
            package: Vec::new(),
            incarnation: Some(life(1)),
            vitals: Vitals::default(),
        });
        worker.join().unwrap();
        let (mut taken, mut missed_count) = (Vec::new(), 0);
        let deliveries = &shared.deliveries;
        while deliveries.poll(
            PollerClass::Reserved,
            1,
            1,
            Duration::ZERO,
            || Instant(1),
            &mut taken,
        ) != PollEnd::TimedOut
        {
            if let Some(Polled::Event(Event::Gap { here: true, messages_count, .. })) = taken.pop()
            {
                missed_count += messages_count;
            }
        }
        assert_eq!(missed_count, 3, "told once");
    });
}

/// An application says that a gap is repaired while more is missed: that is told anew.
pub fn loom_what_is_missed_while_a_gap_is_repaired_is_told() {
    explore(3, || {
        let shared = shared();
        let entry = shared.directory.enter(&identity(1), b"").expect("usable");
        shared.gap(entry.id, true, 1);
        let worker = {
            let (shared, member) = (Arc::clone(&shared), entry.id);
            thread::spawn(move || shared.gap(member, true, 1))
        };
        shared.repaired(entry.id);
        worker.join().unwrap();
        shared.repaired(entry.id);
        let mut taken = Vec::new();
        let deliveries = &shared.deliveries;
        while deliveries.poll(
            PollerClass::Reserved,
            1,
            1,
            Duration::ZERO,
            || Instant(1),
            &mut taken,
        ) != PollEnd::TimedOut
        {}
        assert_eq!(taken.len(), 2, "the first and the second: {taken:?}");
    });
}
