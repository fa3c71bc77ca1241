//! The join barrier: at the side that is asked, phases end in their order and not before what was
//! submitted in them; at the side that asks, nobody waits for a member that has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use loom::thread;

use super::{Recorder, explore, far, identity, life};
use crate::ids::BootId;
use crate::order::{Order, Orders};
use crate::phase::Phases;
use crate::shared::{Bounds, Shared};
use crate::status::Status;

/// What a recorder was told of the barrier, in its order.
fn joined(told: &Recorder) -> Vec<u64> {
    let tokens = told.rest().into_iter().map(|order| match order {
        Order::Joined { stream: 1, token } => token,
        other => panic!("{other:?}"),
    });
    tokens.collect()
}

/// Flags of the test, not of the protocol: loom needs to know nothing of them.
#[derive(Default)]
struct Flags {
    submitted: AtomicBool,
    finished: AtomicBool,
    asked_after: AtomicBool,
}

pub fn loom_an_answer_waits_for_all_that_was_submitted_before_the_question() {
    struct Watch(Arc<Flags>, Arc<Recorder>);
    impl Orders for Watch {
        fn push(&self, worker: u16, order: Order) {
            let Self(flags, told) = self;
            assert!(!flags.asked_after.load(Relaxed) || flags.finished.load(Relaxed), "too early");
            told.push(worker, order);
        }
    }
    explore(3, || {
        let (flags, told) = (Arc::new(Flags::default()), Recorder::new());
        let orders: Arc<dyn Orders> = Arc::new(Watch(Arc::clone(&flags), Arc::clone(&told)));
        let phases = Arc::new(Phases::new(&orders));
        let sender = {
            let (phases, flags) = (Arc::clone(&phases), Arc::clone(&flags));
            thread::spawn(move || {
                let phase = phases.present();
                flags.submitted.store(true, Relaxed);
                // Sent, applied, acknowledged.
                thread::yield_now();
                flags.finished.store(true, Relaxed);
                drop(phase);
            })
        };
        flags.asked_after.store(flags.submitted.load(Relaxed), Relaxed);
        phases.ask(1, 7);
        sender.join().unwrap();
        assert_eq!(joined(&told), [7], "answered once, though no message comes after");
    });
}

pub fn loom_phases_end_in_their_order() {
    explore(3, || {
        let told = Recorder::new();
        let orders: Arc<dyn Orders> = Arc::clone(&told) as Arc<_>;
        let phases = Arc::new(Phases::new(&orders));
        let first = phases.present();
        let asker = {
            let phases = Arc::clone(&phases);
            thread::spawn(move || {
                phases.ask(1, 1);
                let second = phases.present();
                phases.ask(1, 2);
                drop(second);
            })
        };
        let sender = {
            let phases = Arc::clone(&phases);
            thread::spawn(move || drop((first, phases.present())))
        };
        asker.join().unwrap();
        sender.join().unwrap();
        assert_eq!(joined(&told), [1, 2]);
    });
}

pub fn loom_two_who_ask_at_once_are_both_answered() {
    explore(3, || {
        let told = Recorder::new();
        let orders: Arc<dyn Orders> = Arc::clone(&told) as Arc<_>;
        let phases = Arc::new(Phases::new(&orders));
        let other = {
            let phases = Arc::clone(&phases);
            thread::spawn(move || phases.ask(1, 1))
        };
        phases.ask(1, 2);
        other.join().unwrap();
        let mut tokens = joined(&told);
        tokens.sort_unstable();
        assert_eq!(tokens, [1, 2]);
    });
}

/// A node that asks one Ringtribe member; `worker` gets its orders.
fn barrier(with_cut: bool, answers: bool) {
    explore(2, move || {
        let told = Recorder::new();
        let bounds = Bounds { worker_count: 1, ..Bounds::default() };
        let shared = Shared::new(bounds, BootId([9; 16]), Arc::clone(&told) as Arc<_>);
        let entry = shared.directory.enter(&identity(1), b"").expect("usable");
        assert!(entry.set_incarnation(life(1)));
        let worker = {
            let (told, shared) = (Arc::clone(&told), Arc::clone(&shared));
            thread::spawn(move || {
                loop {
                    match told.next() {
                        Order::AskJoin { entry, token } if answers => {
                            shared.joins.answered(token, entry.id);
                            break;
                        }
                        Order::AskJoin { .. } => {}
                        Order::Cut { .. } => break,
                        other => panic!("{other:?}"),
                    }
                }
            })
        };
        let control = with_cut.then(|| {
            let (shared, member) = (Arc::clone(&shared), entry.id);
            thread::spawn(move || shared.cut(member, Status::Cut))
        });
        // loom reports a deadlock if it waits for one who will not answer.
        assert!(shared.join_barrier(far()).is_empty());
        worker.join().unwrap();
        if let Some(control) = control {
            control.join().unwrap();
        }
    });
}

pub fn loom_the_barrier_ends_with_the_answer() {
    barrier(false, true);
}

pub fn loom_the_barrier_waits_for_nobody_who_has_gone() {
    barrier(true, false);
}

pub fn loom_an_answer_and_a_cut_that_race_end_the_barrier() {
    barrier(true, true);
}
