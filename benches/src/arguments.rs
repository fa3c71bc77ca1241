//! The command line.

use lexopt::{Arg, Parser, ValueExt};

/// What is asked for.
pub(crate) enum Command {
    Help,
    TwoNumbers { rounds_count: usize, json: bool },
    Matrix { rounds_count: usize, json: bool },
    Counts { json: bool },
    Member(MemberOptions),
}

/// Options of a member of the engine alone; this program starts itself with them.
#[derive(Default)]
pub(crate) struct MemberOptions {
    pub(crate) backend: String,
    pub(crate) port: String,
    pub(crate) others: String,
}

pub(crate) const HELP: &str = "\
ringtribe-bench [--rounds N] [--json]           two numbers, beside those of stock Tribes
ringtribe-bench --matrix [--rounds N] [--json]  1, 8 and 64 callers and async, 1 and 3 members,
                                                stock, Ringtribe in JVMs, the engine on io_uring and epoll
ringtribe-bench --counts [--json]               what one message costs, beside the budget

N is 3 if not given; figures are the median of the rounds, with the least and the most.";

/// Reads the command line.
///
/// # Errors
/// A sentence that names the argument and what may be given.
pub(crate) fn parse(mut parser: Parser) -> Result<Command, String> {
    let (mut json, mut matrix, mut counts, mut rounds_count) = (false, false, false, 3);
    let mut member: Option<MemberOptions> = None;
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(word) if member.is_none() && word == "member" => {
                member = Some(MemberOptions::default());
                continue;
            }
            Arg::Long(name) => name.to_owned(),
            other => return Err(format!("{}\n\n{HELP}", other.unexpected())),
        };
        let mut text = || {
            let value = parser.value().and_then(|value| value.string());
            value.map_err(|error| error.to_string())
        };
        match (name.as_str(), &mut member) {
            ("backend", Some(member)) => member.backend = text()?,
            ("port", Some(member)) => member.port = text()?,
            ("others", Some(member)) => member.others = text()?,
            ("json", None) => json = true,
            ("matrix", None) => matrix = true,
            ("counts", None) => counts = true,
            ("rounds", None) => {
                let value = text()?;
                rounds_count = match value.parse() {
                    Ok(count @ 1..=99) => count,
                    _ => return Err(format!("--rounds {value}: give 1 to 99")),
                };
            }
            (other, _) => return Err(format!("--{other} is not known\n\n{HELP}")),
        }
    }
    Ok(match member {
        Some(member) => Command::Member(member),
        None if counts => Command::Counts { json },
        None if matrix => Command::Matrix { rounds_count, json },
        None => Command::TwoNumbers { rounds_count, json },
    })
}
