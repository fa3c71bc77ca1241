//! C programs against the library as a user has it: installed by the commands of the README, linked
//! by its pkg-config file, shared and static, under AddressSanitizer and UBSan.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Past the harness, which hides what a test that passes prints.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn exists(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok()
}

/// Runs a tool that must succeed; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    succeeded(&format!("{command:?}"), &output)
}

fn succeeded(what: &str, output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// Where the README's commands have installed everything, once a process.
fn prefix() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let prefix = root().join("target/run/c/prefix");
        let readme = read("ffi/c/README.md");
        let commands = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
        run(Command::new("sh")
            .args(["-euc", commands.expect("the README has an sh block")])
            .current_dir(root())
            .env("PREFIX", &prefix)
            .env("CARGO_TARGET_DIR", root().join("target")));
        prefix.canonicalize().expect("installed")
    })
}

/// The archive whose memory is malloc's, with the assertions of a debug build.
fn archive_for_sanitizers() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // A directory of its own: the other build's files have the same names.
        let target = root().join("target/c");
        run(Command::new("cargo")
            .args(["build", "--quiet", "-p", "ringtribe-c", "--no-default-features"])
            .current_dir(root())
            .env("CARGO_TARGET_DIR", &target));
        target.join("debug/libringtribe.a")
    })
}

/// A line of the pkg-config file, its variables replaced.
fn pc_field(field: &str) -> Vec<String> {
    let file = prefix().join("lib/pkgconfig/ringtribe.pc");
    let text = std::fs::read_to_string(&file).expect("installed");
    let directory = file.parent().expect("it has one").display().to_string();
    let mut variables = vec![("pcfiledir", directory)];
    let expand = |value: &str, variables: &[(&str, String)]| {
        variables.iter().fold(value.to_owned(), |value, (name, with)| {
            value.replace(&format!("${{{name}}}"), with)
        })
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.contains(':')) {
            variables.push((name, expand(value, &variables)));
        } else if let Some(value) =
            line.strip_prefix(field).and_then(|rest| rest.strip_prefix(": "))
        {
            return expand(value, &variables).split_whitespace().map(Into::into).collect();
        }
    }
    panic!("ringtribe.pc has no {field}");
}

/// What `pkg-config --cflags --libs ringtribe` says; worked out here where there is none.
fn pkg_config() -> Vec<String> {
    if !exists("pkg-config") {
        say(
            "NOT TESTED: pkg-config itself, which is not installed (apt-get install -y pkg-config)",
        );
        return [pc_field("Cflags"), pc_field("Libs")].concat();
    }
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "ringtribe"])
        .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")));
    flags.split_whitespace().map(Into::into).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Linked {
    Shared,
    Static,
}

/// Compiles a C program under the sanitizers.
fn compile(source: &str, linked: Linked) -> PathBuf {
    let name = Path::new(source).file_stem().expect("a file").to_string_lossy();
    let program = prefix().join(format!("../{name}-{linked:?}"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .args(["-g", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        .arg(root().join(source))
        .arg("-o")
        .arg(&program);
    match linked {
        Linked::Shared => {
            let library = prefix().join("lib").display().to_string();
            cc.args(pkg_config()).arg(format!("-Wl,-rpath,{library}"));
        }
        Linked::Static => {
            cc.args(pc_field("Cflags")).arg(archive_for_sanitizers());
            cc.args(pc_field("Libs.private"));
        }
    }
    run(&mut cc);
    program
}

/// Whether LeakSanitizer works here: it traces its own process, which some containers forbid.
fn finds_leaks() -> bool {
    static FINDS: OnceLock<bool> = OnceLock::new();
    *FINDS.get_or_init(|| {
        let program = prefix().join("../leak");
        let mut cc = Command::new("cc")
            .args(["-fsanitize=address", "-x", "c", "-", "-o"])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler: apt-get install -y gcc libc6-dev");
        let source = b"#include <stdlib.h>\nint main(void) { return malloc(77) == (void *)1; }\n";
        cc.stdin.take().expect("piped").write_all(source).expect("it reads");
        assert!(cc.wait().expect("it ends").success());
        let output = Command::new(&program).output().expect("it starts");
        let found = String::from_utf8_lossy(&output.stderr).contains("77 byte(s)");
        if !found {
            say("NOT TESTED: leaks, since LeakSanitizer does not work here (ptrace is forbidden?)");
        }
        found
    })
}

/// Starts a program; one that hangs is ended after two minutes.
fn start(program: &Path, arguments: &[&str]) -> Child {
    let leaks = u8::from(finds_leaks());
    Command::new("timeout")
        .arg("120")
        .arg(program)
        .args(arguments)
        .env("ASAN_OPTIONS", format!("detect_leaks={leaks}:detect_stack_use_after_return=1"))
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

fn free_udp_port() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port().to_string()
}

fn two_processes_replicate_to_each_other(linked: Linked) {
    let program = compile("ffi/c/examples/pair.c", linked);
    let port = free_udp_port();
    let pair = ["alpha", "beta"].map(|name| (name, start(&program, &[name, &port])));
    for (name, child) in pair {
        let output = child.wait_with_output().expect("it ends");
        let said = succeeded(&format!("pair {name} ({linked:?})"), &output);
        assert!(said.contains("4000 messages each way, in order"), "{said}");
    }
}

#[test]
fn two_processes_with_the_shared_library_replicate_to_each_other() {
    two_processes_replicate_to_each_other(Linked::Shared);
}

#[test]
fn two_processes_with_the_archive_replicate_to_each_other() {
    two_processes_replicate_to_each_other(Linked::Static);
}

#[test]
fn every_wrong_argument_has_its_status() {
    for linked in [Linked::Shared, Linked::Static] {
        let program = compile("ffi/c/tests/programs/misuse.c", linked);
        let output = start(&program, &[&free_udp_port()]).wait_with_output().expect("it ends");
        let said = succeeded(&format!("misuse ({linked:?})"), &output);
        let checks = said.strip_suffix(" checks\n").and_then(|count| count.parse().ok());
        assert!(checks.is_some_and(|count: u32| count > 300), "{said}");
    }
}

#[test]
fn the_shared_library_exports_what_the_header_declares() {
    let library = prefix().join("lib/libringtribe.so.0");
    let symbols = run(Command::new("nm").args(["-D", "--defined-only", "-P"]).arg(&library));
    let mut exported: Vec<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().next()).collect();
    exported.sort_unstable();
    let header = read("ffi/include/ringtribe.h");
    // A declaration stands at the start of a line; types and comments do not open a bracket there.
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '#', '}']) && line.contains('('))
        .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
        .collect();
    declared.sort_unstable();
    assert_eq!(exported, declared);

    let dynamic = run(Command::new("readelf").args(["-d", "-W"]).arg(&library));
    let version = header.split("#define RINGTRIBE_ABI_VERSION ").nth(1).expect("the header has it");
    let version = version.lines().next().unwrap_or_default();
    assert!(dynamic.contains(&format!("soname: [libringtribe.so.{version}]")), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn the_header_is_good_c_plus_plus() {
    if !exists("c++") {
        say("NOT TESTED: the header as C++, for want of a compiler (apt-get install -y g++)");
        return;
    }
    for standard in ["-std=c++11", "-std=c++20"] {
        run(Command::new("c++")
            .args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
            .args(["-x", "c++"])
            .arg(root().join("ffi/include/ringtribe.h")));
    }
}

#[test]
fn the_pkg_config_file_is_of_this_release_and_needs_no_pkg_config() {
    assert_eq!(pc_field("Version"), [env!("CARGO_PKG_VERSION")]);
    let mut by_hand = [pc_field("Cflags"), pc_field("Libs")].concat();
    let mut by_tool = pkg_config();
    for flags in [&mut by_hand, &mut by_tool] {
        for flag in flags.iter_mut().filter(|flag| flag.contains('/')) {
            let path = Path::new(&flag[2..]).canonicalize().expect("it is installed");
            *flag = format!("{}{}", &flag[..2], path.display());
        }
    }
    assert_eq!(by_tool, by_hand);
}
