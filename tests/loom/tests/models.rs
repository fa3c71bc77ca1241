//! Every model of the library, as a test of its own.

macro_rules! explored {
    ($($path:path as $module:ident { $($model:ident)* })*) => {
        $(mod $module {
            $(#[test]
            fn $model() {
                use $path as models;
                models::$model();
            })*
        })*
    };
}

explored! {
    ringtribe_loom::models::budget as budget {
        loom_room_goes_to_all_who_wait_one_after_the_other
        loom_room_for_two_lets_two_in
        loom_who_gives_up_lets_the_next_one_in
        loom_a_cut_wakes_all_who_wait
        loom_messages_to_the_same_members_in_another_order_do_not_block_each_other
    }
    ringtribe_loom::models::closing as closing {
        loom_a_message_has_its_outcome_though_the_node_closes
    }
    ringtribe_loom::models::deliveries as deliveries {
        loom_a_line_is_delivered_in_order_by_any_of_its_pollers
        loom_a_message_in_pieces_keeps_its_place
        loom_two_messages_in_one_push_wake_two_pollers
        loom_two_messages_in_two_pushes_wake_two_pollers
        loom_the_next_of_a_line_wakes_a_poller_when_the_one_before_has_ended
        loom_replies_and_events_wake_the_reserved_poller
        loom_who_ends_the_last_message_of_a_held_connection_resumes_it
        loom_a_duplicate_gets_the_outcome_of_the_first_copy
    }
    ringtribe_loom::models::inbox as inbox {
        loom_no_wake_up_is_lost_with_one_pusher
        loom_no_wake_up_is_lost_with_two_pushers
        loom_nothing_stays_inside_a_closed_inbox
    }
    ringtribe_loom::models::members as members {
        loom_refused_messages_are_counted_once_and_named_by_their_own_key
        loom_a_refused_message_is_told_before_the_next_one_of_its_caller
        loom_what_was_missed_of_a_newcomer_is_told
        loom_what_is_missed_while_a_gap_is_repaired_is_told
    }
    ringtribe_loom::models::messages as messages {
        loom_who_sleeps_until_all_have_answered_is_woken_by_the_last
        loom_an_outcome_and_a_deadline_that_race_leave_one_of_both
        loom_a_completion_event_is_due_once
    }
    ringtribe_loom::models::phases as phases {
        loom_an_answer_waits_for_all_that_was_submitted_before_the_question
        loom_phases_end_in_their_order
        loom_two_who_ask_at_once_are_both_answered
        loom_the_barrier_ends_with_the_answer
        loom_the_barrier_waits_for_nobody_who_has_gone
        loom_an_answer_and_a_cut_that_race_end_the_barrier
    }
    ringtribe_loom::protocol::stream::models as streams {
        loom_two_awaited_outcomes_reach_the_worker
        loom_an_outcome_that_nobody_waits_for_hides_none_that_is_awaited
        loom_room_that_is_given_back_goes_to_the_next
        loom_a_stream_that_gives_up_holds_up_nobody
    }
}

#[test]
fn no_model_is_left_out() {
    fn walk(directory: &std::path::Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, text);
            } else {
                text.push_str(&std::fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    let mut sources = String::new();
    walk(concat!(env!("CARGO_MANIFEST_DIR"), "/src").as_ref(), &mut sources);
    let here = include_str!("models.rs");
    let models: Vec<&str> =
        sources.split("pub fn loom_").skip(1).filter_map(|rest| rest.split('(').next()).collect();
    assert!(models.len() > 20, "{models:?}");
    for model in models {
        assert!(here.contains(&format!("loom_{model}\n")), "loom_{model} is not explored");
    }
}
