//! Membership as a state machine: what Ringtribe nodes say of themselves.

use ringtribe::directory::{Identity, Vitals};
use ringtribe::protocol::membership::{Input, LocalMember, Membership, Output, ProbeResult};
use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::tribes::{Member, SHUTDOWN_COMMAND};

mod membership_bench;
use membership_bench::*;

#[test]
fn heartbeats_and_goodbyes_name_the_incarnation_and_its_state() {
    let mut bench = Bench::new();
    bench.give(Input::SetVitals { oldest_unfinished_ms: 1_234, draining: false });
    bench.give(Input::StartSending);
    bench.give(Input::SetVitals { oldest_unfinished_ms: 1_234, draining: true });
    bench.give(Input::StopReceiving);
    bench.give(Input::StopSending);
    let limits = ringtribe_wire::Limits::default();
    let told: Vec<_> = bench
        .out
        .iter()
        .filter_map(|output| match output {
            Output::SendDatagram(bytes) => {
                let (member, package_bytes) = Member::decode(bytes, &limits).expect("a package");
                let said = Extension::decode(&bytes[package_bytes..]).expect("sound");
                let said = said.expect("an extension");
                assert_eq!((said.boot_id, said.features, said.version_max), ([99; 16], 5, 3));
                assert_eq!(said.package, None, "it stands before the block");
                assert_eq!(said.oldest_unfinished_ms, 1_234);
                Some((member.is_shutdown(), said.ready, said.draining, said.members_count))
            }
            _ => None,
        })
        .collect();
    let expected = [(false, true, false, 1), (false, true, true, 1), (true, false, true, 0)];
    assert_eq!(told, expected);
    let behind_acks = bench.out.iter().rev().find_map(|output| match output {
        Output::Extension(block) => Some(block.clone()),
        _ => None,
    });
    let behind_acks = behind_acks.expect("told");
    let said = Extension::decode(&behind_acks).expect("sound").expect("an extension");
    assert!(!said.ready, "it has said goodbye");
    let (member, _) = Member::decode(said.package.expect("named"), &limits).expect("a package");
    assert_eq!((member.port, member.host), (4000, &[10, 0, 0, 9][..]));
}

#[test]
fn who_speaks_the_own_format_is_believed_from_its_own_host_alone() {
    let mut bench = Bench::new();
    let beat = |alive_ms| packet(1, 4001, alive_ms, b"", b"");
    // Somebody else's word: a stock node, as far as is known; and that is said once.
    for alive_ms in [100, 600, 1_100] {
        bench.hear(&[beat(alive_ms), block(&said(1))].concat());
    }
    bench.answer(&ANSWERED);
    let story = bench.story();
    assert_eq!(story[0], "added 4001 id 1 tribes");
    let logged = story[1].contains("from its own address") && story[1].contains("127.0.0.1");
    assert!(logged && story.len() == 2, "{story:?}");
    // Its own word, later: the same member speaks more.
    bench.hear_ringtribe(&beat(1_600), &said(1));
    bench.hear_ringtribe(&beat(2_100), &said(1));
    assert_eq!(bench.story(), ["changed 4001 id 1 life 1"]);
    // Damage is refused whole.
    let mut damaged = [beat(2_600), block(&said(1))].concat();
    *damaged.last_mut().expect("bytes") ^= 1;
    bench.give(Input::Datagram { bytes: &damaged, from: HOST });
    assert!(bench.story()[0].contains("CRC"));
    assert_eq!(bench.membership.counters().malformed_datagrams_count, 1);
    // What is no extension is nobody's business.
    bench.hear(&[beat(2_600), b"trailing bytes of another program".to_vec()].concat());
    assert_eq!(bench.story(), Vec::<String>::new());
}

#[test]
fn another_life_at_the_same_name_is_another_member_and_the_former_does_not_return() {
    let mut bench = Bench::new();
    bench.hear_ringtribe(&packet(1, 4001, 9_000, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 life 1"]);
    bench.hear_ringtribe(&packet(1, 4001, 10, b"", b""), &said(2));
    assert_eq!(bench.story(), ["gone 4001 Cut"], "at once");
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 life 2"], "after its probe");
    // Late packets of the former life, its goodbye among them.
    bench.hear_ringtribe(&packet(1, 4001, 9_500, b"", b""), &said(1));
    bench.hear_ringtribe(&packet(1, 4001, 9_600, SHUTDOWN_COMMAND, b""), &said(1));
    assert_eq!(bench.answer(&ProbeResult::Refused), 0);
    assert_eq!(bench.story(), Vec::<String>::new());
    // Back to stock, under the same configured id: it must not get the own format.
    bench.hear_ringtribe(&packet(1, 4001, 5_000, b"", b""), &said(2));
    let hears = |bench: &mut Bench, alive_ms| {
        let bytes = packet(1, 4001, alive_ms, b"", b"");
        bench.give(Input::Datagram { bytes: &bytes, from: HOST });
    };
    hears(&mut bench, 20);
    assert_eq!(bench.answer(&ANSWERED), 1, "it may have come late: who lives there is asked");
    assert_eq!(bench.story(), Vec::<String>::new());
    hears(&mut bench, 520);
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["gone 4001 Cut"]);
    hears(&mut bench, 1_020);
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 tribes"]);
}

#[test]
fn what_a_member_said_before_it_spoke_the_own_format_does_not_take_that_back() {
    let mut bench = Bench::new();
    bench.hear_ringtribe(&packet(1, 4001, 9_000, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 life 1"]);
    for alive_ms in [8_000, 8_100, 8_200, 8_300] {
        let bytes = packet(1, 4001, alive_ms, b"", b"");
        bench.give(Input::Datagram { bytes: &bytes, from: HOST });
        assert_eq!(bench.answer(&answer_of(&said(1))), 1);
    }
    assert_eq!(bench.story(), Vec::<String>::new());
}

#[test]
fn a_copied_incarnation_is_refused_and_named() {
    let mut bench = Bench::new();
    bench.hear_ringtribe(&packet(1, 4001, 100, b"", b""), &said(99));
    assert!(bench.story()[0].contains("10.0.0.1:4001"), "ours, from somebody else");
    bench.answer(&ANSWERED);
    assert!(bench.membership.members().is_empty());
    bench.pass(1_000);
    bench.hear_ringtribe(&packet(1, 4001, 100, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 life 1"]);
    // Two candidates at a time: the first to be announced is it.
    bench.hear_ringtribe(&packet(2, 4002, 100, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    let story = bench.story();
    assert_eq!(story.len(), 1);
    assert!(story[0].contains("10.0.0.1:4001") && story[0].contains("10.0.0.1:4002"), "{story:?}");
    assert_eq!(bench.membership.members().len(), 1);
    assert_eq!(bench.membership.counters().foreign_boot_ids_count, 2);
    // When the first has gone the second is welcome.
    bench.hear_ringtribe(&packet(1, 4001, 200, SHUTDOWN_COMMAND, b""), &said(1));
    bench.answer(&ProbeResult::Refused);
    bench.hear_ringtribe(&packet(2, 4002, 600, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["gone 4001 Goodbye", "added 4002 id 2 life 1"]);
}

#[test]
fn who_leaves_goes_at_once_and_is_not_brought_back_by_a_heartbeat_on_its_way() {
    let mut bench = Bench::new();
    bench.hear_ringtribe(&packet(1, 4001, 100, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 life 1"]);
    let leaving = Extension { draining: true, ..said(1) };
    bench.hear_ringtribe(&packet(1, 4001, 150, b"", b""), &leaving);
    assert_eq!(bench.story(), ["gone 4001 Goodbye"]);
    for extension in [said(1), leaving] {
        bench.hear_ringtribe(&packet(1, 4001, 160, b"", b""), &extension);
        bench.answer(&ANSWERED);
        assert!(bench.story().is_empty());
    }
    // Another life is another matter.
    bench.hear_ringtribe(&packet(1, 4001, 10, b"", b""), &said(2));
    bench.answer(&ANSWERED);
    assert_eq!(bench.story(), ["added 4001 id 1 life 2"]);
}

#[test]
fn a_view_that_stays_different_is_named_once() {
    let mut bench = Bench::new();
    let other = Extension { members_count: 7, view_hash: 1, oldest_unfinished_ms: 9, ..said(1) };
    bench.hear_ringtribe(&packet(1, 4001, 100, b"", b""), &other);
    bench.answer(&ANSWERED);
    let vitals = Vitals {
        members_count: 7,
        view_hash: 1,
        oldest_unfinished_ms: 9,
        ready: true,
        ..Vitals::default()
    };
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [1; 16] };
    assert_eq!(bench.membership.vitals(&identity), Some(vitals));
    let known =
        |output: &Output| matches!(output, Output::Added { vitals: told, .. } if *told == vitals);
    assert!(bench.out.iter().any(known), "told with the member");
    bench.story();
    let calm = Extension { oldest_unfinished_ms: 0, ..other };
    bench.hear_ringtribe(&packet(1, 4001, 150, b"", b""), &calm);
    let told = Output::Vitals { identity, vitals: Vitals { oldest_unfinished_ms: 0, ..vitals } };
    assert_eq!(bench.out.iter().filter(|output| **output == told).count(), 1);
    bench.hear_ringtribe(&packet(1, 4001, 160, b"", b""), &calm);
    assert_eq!(bench.out.iter().filter(|output| **output == told).count(), 1, "changes alone");
    bench.story();
    let mut logs = Vec::new();
    for beat in 1..=20 {
        bench.pass(FREQUENCY_MS);
        bench.hear_ringtribe(&packet(1, 4001, 200 + 500 * beat, b"", b""), &other);
        logs.extend(bench.story().into_iter().map(|text| (bench.now, text)));
        if beat * 500 < i64::try_from(DROP_MS).expect("short") {
            assert!(logs.is_empty(), "views differ for a while when members come and go");
        }
    }
    assert_eq!(logs.len(), 1, "{logs:?}");
    let text = &logs[0].1;
    assert!(text.contains("10.0.0.1:4001") && text.contains("counts 7, this node 2"), "{text}");
    assert_eq!(bench.membership.counters().asymmetric_views_count, 1);
}

#[test]
fn nodes_that_see_the_same_members_hash_alike() {
    // Two nodes and a member that both see: whoever computes it, the view is one.
    let mut views = Vec::new();
    for (here, there) in [(1, 2), (2, 1)] {
        let mut bench = Bench::of(Membership::new(FREQUENCY_MS, DROP_MS).speaking(life(here)));
        let port = 4000 + i32::from(here);
        bench.give(Input::SetLocal(LocalMember {
            host: vec![10, 0, 0, 1],
            port,
            unique_id: [here; 16],
            ..LocalMember::default()
        }));
        bench.hear_ringtribe(&packet(there, 4000 + i32::from(there), 100, b"", b""), &said(there));
        bench.hear(&packet(7, 4007, 100, b"", b""));
        bench.answer(&ANSWERED);
        let block = bench.out.iter().rev().find_map(|output| match output {
            Output::Extension(block) => Some(block.clone()),
            _ => None,
        });
        let block = block.expect("told");
        let said = Extension::decode(&block).expect("sound").expect("an extension");
        assert_eq!(said.members_count, 3);
        views.push(said.view_hash);
    }
    assert_eq!(views[0], views[1]);
}

#[test]
fn who_has_another_cluster_name_is_no_member_and_is_named_once() {
    let named = |name: &str| {
        Bench::of(Membership::new(FREQUENCY_MS, DROP_MS).speaking(OWN).of_cluster(name))
    };
    for (here, there, is_member) in
        [("one", "one", true), ("one", "two", false), ("one", "", false), ("", "two", false)]
    {
        let mut bench = named(here);
        let extension = Extension { cluster_name: there.as_bytes(), ..said(1) };
        for beat in 0..3 {
            bench.hear_ringtribe(&packet(1, 4001, 100 + beat, b"", b""), &extension);
            bench.answer(&ANSWERED);
        }
        let told = bench.story();
        let counted = bench.membership.counters().other_clusters_count;
        if is_member {
            assert_eq!((told, counted), (vec!["added 4001 id 1 life 1".to_owned()], 0));
        } else {
            let text = format!("its clusterName is \"{there}\", this node's is \"{here}\"");
            assert!(told.len() == 1 && told[0].contains(&text), "{told:?}");
            assert_eq!(counted, 3);
        }
        // A stock node says no name: who shares its group is its cluster.
        bench.hear(&packet(2, 4002, 100, b"", b""));
        bench.answer(&ANSWERED);
        assert_eq!(bench.story(), ["added 4002 id 2 tribes"]);
    }
}
