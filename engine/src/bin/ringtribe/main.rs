//! `ringtribe`: runs a member, shows what replication does, says what a machine offers, and migrates
//! a server.xml.

mod arguments;
mod demo;
mod demo_ledger;
mod demo_member;
mod demo_peers;
mod doctor;
mod findings;
mod member;
mod migrate;
mod node;
mod output;
mod settings;

use std::process::ExitCode;

use arguments::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status of arguments or settings that are refused.
const REFUSED: u8 = 2;

const HELP: &str = "\
ringtribe: session replication between the nodes of a cluster

ringtribe node [--server-xml FILE] [--set NAME=VALUE]... [--json]
    Runs a member that accepts every message, until SIGTERM or SIGINT. Prints the settings and
    where each came from, members as they come and go, and traffic each second that has some.

ringtribe demo [--messages N] [--size BYTES] [--members N] [--json]
    Three members as three processes on this machine: measures replication, kills one by SIGKILL
    while all send, and checks that everything acknowledged is on the others. Exit status 0 only
    if it is.
    --messages N      messages of each measurement with acknowledgement (10000); without, ten
                      times as many; each ends after two seconds
    --size BYTES      of a message (1024)
    --members N       2 to 9 (3)
    --drop-replication  self-test: a member acknowledges messages that it does not keep; the demo
                      must find out and fail

ringtribe doctor [--server-xml FILE] [--set NAME=VALUE]... [--members N] [--json]
    Says what this machine offers a node with these settings, and what to do about the rest. Exit
    status 0 if a node can run here.
    --members N       nodes that the cluster will have (4), for limits that grow with them

ringtribe migrate FILE --to 9.0|10.1|11.0 [--output FILE] [--json]
    Makes of a server.xml of Tomcat 5.5 one for this line of Tomcat, with Ringtribe's Cluster, and
    prints a table of what changed: line, was, is, why. Comments and all else stay as they are.
    --output FILE     a new file; without, the server.xml goes to standard output, the table to
                      standard error

--server-xml FILE     reads the Cluster element of Tomcat's server.xml
--set NAME=VALUE      an attribute by its Tomcat name, over the file: --set tcpListenPort=4002
--json                for programs: node prints an object a line, the others one object
--help, --version

Exit status: 0 as said, 1 if not, 2 for arguments or settings that are refused.
";

fn main() -> ExitCode {
    let command = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(text) => return refused(&text),
    };
    let result = match command {
        Command::Help => output::line(HELP.trim_end()).map(|()| ExitCode::SUCCESS),
        Command::Version => output::line(concat!("ringtribe ", env!("CARGO_PKG_VERSION")))
            .map(|()| ExitCode::SUCCESS),
        Command::Node { request, json } => match request.settings() {
            Ok(settings) => node::run(&settings, json),
            Err(text) => return refused(&text),
        },
        Command::Doctor { request, members_count, json } => match request.settings() {
            Ok(settings) => doctor::run(&settings, members_count, json),
            Err(text) => return refused(&text),
        },
        Command::Migrate(options) => match migrate::migrated(&options) {
            Ok(migrated) => migrate::print(&options, &migrated),
            Err(text) => return refused(&text),
        },
        Command::Demo(options) => demo::run(&options),
        Command::DemoMember(options) => demo_member::run(&options),
    };
    result.unwrap_or_else(|error| {
        // Nobody reads any more, as behind `| head`: no reason to complain.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("ringtribe: {error}");
        }
        ExitCode::FAILURE
    })
}

fn refused(text: &str) -> ExitCode {
    eprintln!("ringtribe: {text}");
    ExitCode::from(REFUSED)
}
