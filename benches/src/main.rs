//! Ringtribe beside stock Tribes in one run, and what a message costs. `--help` tells how.

mod allocations;
mod arguments;
mod cases;
mod cluster;
mod counts;
mod figures;
mod member;
mod rounds;
mod threads;

use std::process::ExitCode;

use crate::arguments::{Command, HELP, parse};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn main() -> ExitCode {
    let done = parse(lexopt::Parser::from_env()).and_then(|command| match command {
        Command::Help => {
            println!("{HELP}");
            Ok(())
        }
        Command::TwoNumbers { rounds_count, json } => rounds::two_numbers(rounds_count, json),
        Command::Matrix { rounds_count, json } => rounds::matrix(rounds_count, json),
        Command::Counts { json } => counts::run(json),
        Command::Member(options) => member::run(&options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("the measurement stopped: {text}");
            ExitCode::FAILURE
        }
    }
}
