//! A member in a process of its own, driven line by line.
//!
//! `member ID [NAME=VALUE ...]` with the engine's attributes; says its port. Commands: `members
//! count=N` waits for so many, `delivered key=K` tells the numbers of the messages of a key,
//! `gaps port=N` counts what it and that member were told to have missed, `repaired` says that it is, `await key=K
//! number=N` waits for a message.

use std::io::BufRead;
use std::process::ExitCode;

use ringtribe_tests::member::{Member, runs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(words: &[&str], name: &str) -> Result<u64, String> {
    let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let value = value.ok_or_else(|| format!("{name}= is missing"))?;
    value.parse().map_err(|error| format!("{name}={value}: {error}"))
}

fn answer(member: &Member, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.first().copied() {
        Some("members") => {
            let wanted = usize::try_from(number(&words, "count")?).unwrap_or(usize::MAX);
            member.wait("members", |_| (member.node.members().len() == wanted).then_some(()))?;
            Ok(format!("members={wanted}"))
        }
        Some("delivered") => {
            let key = number(&words, "key")?;
            Ok(member
                .look(|seen| runs(seen.delivered.get(&key).map(Vec::as_slice).unwrap_or_default())))
        }
        Some("before-pause") => {
            let key = number(&words, "key")?;
            let count = member.look(|seen| seen.before_pause.get(&key).copied().unwrap_or(0));
            Ok(format!("{count}"))
        }
        Some("await") => {
            let (key, wanted) = (number(&words, "key")?, number(&words, "number")?);
            member.wait("a message", |seen| {
                seen.delivered.get(&key)?.contains(&wanted).then_some(())
            })?;
            Ok("came".into())
        }
        Some("gaps") => {
            let port = number(&words, "port")?;
            let entries = member.node.members();
            let of = entries.iter().find(|entry| u64::from(entry.address.port()) == port);
            let of = of.ok_or_else(|| format!("no member listens at {port}"))?.id;
            let count = |is_here| member.look(|seen| seen.gaps_count(of, is_here));
            Ok(format!("here={} there={}", count(true), count(false)))
        }
        Some("repaired") => {
            for entry in member.node.members() {
                member.node.repaired(entry.id);
            }
            Ok("repaired".into())
        }
        _ => Err(format!("no such command: {line}")),
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (id, settings) = arguments.split_first().ok_or("give an id")?;
    let id = id.parse().map_err(|error| format!("{id}: {error}"))?;
    let settings: Option<Vec<(&str, &str)>> =
        settings.iter().map(|setting| setting.split_once('=')).collect();
    let member = Member::start(id, &settings.ok_or("settings are NAME=VALUE")?)?;
    println!("port={}", member.address.port());
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("> {}", answer(&member, &line).unwrap_or_else(|text| format!("error {text}")));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
