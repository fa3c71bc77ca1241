//! The command line: what is asked for, or which word is wrong and what may be meant.

use std::ffi::OsStr;
use std::str::FromStr;

use lexopt::{Arg, Parser};
use ringtribe::config::nearest;
use ringtribe::server_xml::migrate::Line;

use crate::migrate::Migrate;
use crate::settings::Request;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
    Node { request: Request, json: bool },
    Demo(Demo),
    DemoMember(DemoMember),
    Doctor { request: Request, members_count: u64, json: bool },
    Migrate(Migrate),
}

/// Options of the demo.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Demo {
    pub(crate) json: bool,
    pub(crate) messages_count: u64,
    pub(crate) size_bytes: usize,
    pub(crate) members_count: usize,
    pub(crate) drop_replication: bool,
}

/// Options of a member that the demo starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DemoMember {
    pub(crate) number: u8,
    pub(crate) group: String,
    pub(crate) port: u16,
    pub(crate) drop_replication: bool,
}

const COMMANDS: [&str; 4] = ["node", "demo", "doctor", "migrate"];
const MAX_MESSAGES_COUNT: u64 = 10_000_000;
const MAX_SIZE_BYTES: u64 = 16 << 20;
const MAX_DEMO_MEMBERS_COUNT: u64 = 9;
/// As many as a node knows.
const MAX_MEMBERS_COUNT: u64 = 4_096;

/// Reads the command line.
///
/// # Errors
/// A sentence that names the argument and what may be given.
pub(crate) fn parse(mut parser: Parser) -> Result<Command, String> {
    let word = match parser.next().map_err(|error| error.to_string())? {
        None => {
            return Err(format!("say what to do: {}; --help tells more", COMMANDS.join(", ")));
        }
        Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Command::Help),
        Some(Arg::Long("version") | Arg::Short('V')) => return Ok(Command::Version),
        Some(Arg::Value(word)) => word.to_string_lossy().into_owned(),
        Some(other) => {
            let known = ["--help", "--version"];
            return Err(unknown(&spelled(&other), known.into_iter().chain(COMMANDS)));
        }
    };
    match word.as_str() {
        "help" => Ok(Command::Help),
        "node" => node(&mut parser),
        "demo" => demo(&mut parser),
        "doctor" => doctor(&mut parser),
        "migrate" => migrate(&mut parser),
        "demo-member" => demo_member(&mut parser),
        other => Err(unknown(other, COMMANDS.into_iter())),
    }
}

fn spelled(arg: &Arg<'_>) -> String {
    match arg {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(value) => value.to_string_lossy().into_owned(),
    }
}

fn unknown<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("{given} is not known here; did you mean {}? --help tells more", nearest(given, known))
}

/// Hands each option to `take`, which answers whether it knows it. True if help was asked for.
fn each_option(
    parser: &mut Parser,
    known: &[&str],
    mut take: impl FnMut(&str, &mut Parser) -> Result<bool, String>,
) -> Result<bool, String> {
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        let given = spelled(&arg);
        if given == "--help" || given == "-h" {
            return Ok(true);
        }
        if !take(&given, parser)? {
            return Err(unknown(&given, known.iter().copied().chain(["--help"])));
        }
    }
    Ok(false)
}

fn text(parser: &mut Parser, option: &str, what: &str) -> Result<String, String> {
    let value = parser.value().map_err(|_| format!("{option} needs {what} behind it"))?;
    let not_text = |value: &OsStr| format!("{option} {}: give text", value.to_string_lossy());
    value.into_string().map_err(|value| not_text(&value))
}

fn number(parser: &mut Parser, option: &str, least: u64, most: u64) -> Result<u64, String> {
    let text = text(parser, option, "a number")?;
    let number = u64::from_str(&text).ok().filter(|number| (least..=most).contains(number));
    number
        .ok_or_else(|| format!("{option} {text} is refused: give a number from {least} to {most}"))
}

/// The options that say how a node is set up.
fn take_setting(option: &str, parser: &mut Parser, request: &mut Request) -> Result<bool, String> {
    match option {
        "--server-xml" => {
            let path = parser.value().map_err(|_| format!("{option} needs a file behind it"))?;
            if request.server_xml.replace(path.into()).is_some() {
                return Err(format!("{option} is given twice; give one file"));
            }
        }
        "--set" => {
            let pair = text(parser, option, "NAME=VALUE")?;
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                format!("--set {pair} is refused: give NAME=VALUE, as in tcpListenPort=4002")
            })?;
            request.set.push((name.trim().to_owned(), value.to_owned()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn node(parser: &mut Parser) -> Result<Command, String> {
    let (mut request, mut json) = (Request::default(), false);
    let known = ["--server-xml", "--set", "--json"];
    let help = each_option(parser, &known, |option, parser| match option {
        "--json" => {
            json = true;
            Ok(true)
        }
        _ => take_setting(option, parser, &mut request),
    })?;
    Ok(if help { Command::Help } else { Command::Node { request, json } })
}

fn doctor(parser: &mut Parser) -> Result<Command, String> {
    let (mut request, mut json, mut members_count) = (Request::default(), false, 4);
    let known = ["--server-xml", "--set", "--members", "--json"];
    let help = each_option(parser, &known, |option, parser| {
        match option {
            "--json" => json = true,
            "--members" => members_count = number(parser, option, 1, MAX_MEMBERS_COUNT)?,
            _ => return take_setting(option, parser, &mut request),
        }
        Ok(true)
    })?;
    Ok(if help { Command::Help } else { Command::Doctor { request, members_count, json } })
}

fn migrate(parser: &mut Parser) -> Result<Command, String> {
    let (mut file, mut to, mut output, mut json) = (None, None, None, false);
    let known = ["--to", "--output", "--json"];
    let help = each_option(parser, &known, |option, parser| {
        match option {
            "--json" => json = true,
            "--to" => {
                let name = text(parser, option, "9.0, 10.1 or 11.0")?;
                let line = Line::named(&name);
                let line = line.ok_or_else(|| {
                    format!("--to {name} is refused: give a line of Tomcat, 9.0, 10.1 or 11.0")
                })?;
                to = Some(line);
            }
            "--output" => {
                let path =
                    parser.value().map_err(|_| format!("{option} needs a file behind it"))?;
                output = Some(path.into());
            }
            given if !given.starts_with('-') => {
                if file.replace(given.into()).is_some() {
                    return Err(format!("{given} is a second file; give one server.xml"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if help {
        return Ok(Command::Help);
    }
    let file = file.ok_or("migrate needs a server.xml: ringtribe migrate FILE --to 10.1")?;
    let to = to.ok_or("migrate needs the line of Tomcat to migrate to: --to 9.0, 10.1 or 11.0")?;
    Ok(Command::Migrate(Migrate { file, to, output, json }))
}

#[allow(clippy::cast_possible_truncation, reason = "the ranges fit the fields")]
fn demo(parser: &mut Parser) -> Result<Command, String> {
    let mut demo = Demo {
        json: false,
        messages_count: 10_000,
        size_bytes: 1_024,
        members_count: 3,
        drop_replication: false,
    };
    let known = ["--messages", "--size", "--members", "--json", "--drop-replication"];
    let least_bytes = crate::demo_ledger::HEAD_BYTES as u64;
    let help = each_option(parser, &known, |option, parser| {
        match option {
            "--json" => demo.json = true,
            "--drop-replication" => demo.drop_replication = true,
            "--messages" => demo.messages_count = number(parser, option, 1, MAX_MESSAGES_COUNT)?,
            "--size" => {
                demo.size_bytes = number(parser, option, least_bytes, MAX_SIZE_BYTES)? as usize;
            }
            "--members" => {
                demo.members_count = number(parser, option, 2, MAX_DEMO_MEMBERS_COUNT)? as usize;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(if help { Command::Help } else { Command::Demo(demo) })
}

#[allow(clippy::cast_possible_truncation, reason = "the ranges fit the fields")]
fn demo_member(parser: &mut Parser) -> Result<Command, String> {
    let mut member = DemoMember::default();
    let known = ["--number", "--group", "--port", "--drop-replication"];
    let help = each_option(parser, &known, |option, parser| {
        match option {
            "--number" => member.number = number(parser, option, 1, MAX_DEMO_MEMBERS_COUNT)? as u8,
            "--group" => member.group = text(parser, option, "an address")?,
            "--port" => member.port = number(parser, option, 1, 65_535)? as u16,
            "--drop-replication" => member.drop_replication = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(if help { Command::Help } else { Command::DemoMember(member) })
}
