//! The order of the house: formatting, lints, docs, who may import whom, licences.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ringtribe_tests::build::root;

fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) {
    let output = Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{program} {}:\n{}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_code_is_formatted_and_without_lints_and_its_docs_build() {
    run("cargo", &["fmt", "--all", "--check"], &[]);
    // Builds of their own, so that this does not wait for the build that runs the tests.
    let target = ("CARGO_TARGET_DIR", "target/house");
    run(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
        &[target],
    );
    run(
        "cargo",
        &["clippy", "-p", "ringtribe-wire", "--no-default-features", "--quiet"],
        &[target],
    );
    run(
        "cargo",
        &["doc", "--workspace", "--no-deps", "--quiet"],
        &[target, ("RUSTDOCFLAGS", "-D warnings")],
    );
}

/// Every source file below `directory`, with its text.
fn sources(directory: &str) -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(path).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "java") {
                let text = std::fs::read_to_string(&path).expect("a text");
                let name = path.strip_prefix(root()).expect("below the root").display();
                found.push((name.to_string(), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(directory), &mut found);
    assert!(!found.is_empty(), "{directory} has sources");
    found
}

/// Lines of code that contain `word` as a word of its own, comments aside.
fn lines_with<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let is_alone = move |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            !line[..at].ends_with(|before: char| before == '_' || before.is_alphanumeric())
        })
    };
    text.lines().filter(move |line| !line.trim_start().starts_with("//") && is_alone(line))
}

#[test]
fn nobody_imports_what_is_not_his_layer() {
    // Which package may be named where: the only places.
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("io_uring::", &["engine/src/ring/"][..]),
        ("tokio_uring::", &["engine/src/control/"]),
        ("tokio::", &["engine/src/control/"]),
        ("socket2::", &["engine/src/ring/", "engine/src/epoll/", "engine/src/control/"]),
        (
            "nix::",
            &[
                "engine/src/ring/",
                "engine/src/epoll/",
                "engine/src/control/",
                "engine/src/machine.rs",
            ],
        ),
        ("crossbeam::", &["engine/src/sync.rs"]),
        ("mimalloc::", &["engine/src/bin/"]),
        ("lexopt::", &["engine/src/bin/"]),
        ("serde_json::", &["engine/src/bin/"]),
    ]);
    for (file, text) in sources("engine/src") {
        for (package, places) in &allowed {
            let may = places.iter().any(|place| file.starts_with(place));
            for line in lines_with(&text, package) {
                assert!(may, "{file} names {package} outside of {places:?}: {line}");
            }
        }
    }
    // The core sees no socket, clock, thread or random source.
    for (file, text) in sources("engine/src/protocol") {
        for word in ["std::time::", "std::thread::", "net::Tcp", "net::Udp", "HashMap", "rand::"] {
            let found = lines_with(&text, word).next();
            assert_eq!(found, None, "{file} names {word}");
        }
        for arrow in ["crate::ring", "crate::epoll", "crate::control", "crate::node"] {
            let found = lines_with(&text, arrow).next();
            assert_eq!(found, None, "{file} reaches {arrow}");
        }
    }
    // Of the backends, the ring alone knows io_uring, and only the choice knows both.
    for (file, text) in sources("engine/src/epoll") {
        assert_eq!(lines_with(&text, "crate::ring").next(), None, "{file} reaches crate::ring");
    }
    // wire knows nobody; the engine does not know its skins; nobody knows benches or tests.
    for (directory, strangers) in [
        ("wire/src", &["ringtribe::", "ringtribe_ffi", "ringtribe_jni", "ringtribe_tests"][..]),
        ("engine/src", &["ringtribe_ffi", "ringtribe_jni", "ringtribe_tests", "jni_sys"]),
        ("ffi/src", &["ringtribe_jni", "ringtribe_tests", "jni_sys"]),
        ("ffi/jni/src", &["ringtribe_tests", "ringtribe_bench"]),
        ("ffi/c/src", &["ringtribe_jni", "ringtribe_tests", "ringtribe_bench", "jni_sys"]),
    ] {
        for (file, text) in sources(directory) {
            for stranger in strangers {
                assert_eq!(lines_with(&text, stranger).next(), None, "{file} names {stranger}");
            }
        }
    }
    // In Java only the tomcat package names Tomcat.
    for (file, text) in sources("ffi/java/src/main/java") {
        let tomcat = file.contains("/org/ringtribe/tomcat/");
        let found = lines_with(&text, "org.apache.").next();
        assert!(tomcat || found.is_none(), "{file} names Tomcat: {found:?}");
    }
}

#[test]
fn unsafe_stands_in_few_places_and_argues() {
    let places = [
        "engine/src/ring/",
        "engine/src/control/descriptor.rs",
        "ffi/jni/src/",
        "ffi/c/src/borrow.rs",
        // A counting allocator is unsafe by its trait.
        "benches/src/allocations.rs",
        "tests/fuzz/src/targets/allocations.rs",
        // Calls the C entry points, as a C program does.
        "tests/fuzz/src/c.rs",
    ];
    for directory in [
        "wire/src",
        "engine/src",
        "ffi/src",
        "ffi/jni/src",
        "ffi/c/src",
        "tests/src",
        "tests/fuzz/src",
        "benches/src",
    ] {
        for (file, text) in sources(directory) {
            let may = places.iter().any(|place| file.starts_with(place));
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                if line.trim_start().starts_with("//") || !line.contains("unsafe {") {
                    continue;
                }
                assert!(may, "{file}:{}: unsafe outside of {places:?}", number + 1);
                let before = lines[number.saturating_sub(6)..=number].join("\n");
                assert!(before.contains("SAFETY"), "{file}:{}: no SAFETY comment", number + 1);
            }
        }
    }
}

#[test]
fn licences_and_sources_of_all_packages_are_known() {
    let tools = root().join("target/tools");
    let deny = tools.join("bin/cargo-deny");
    if !deny.exists() {
        // A debug build: it runs for a second, and compiles in a fraction of the time.
        let tools = tools.display().to_string();
        let install =
            ["install", "cargo-deny", "--version", "0.20.2", "--locked", "--debug", "--quiet"];
        let root = ["--root", &tools];
        run(
            "cargo",
            &[&install[..], &root[..]].concat(),
            &[("CARGO_TARGET_DIR", "target/tools/build")],
        );
    }
    let deny = deny.display().to_string();
    run(&deny, &["--offline", "check", "licenses", "bans", "sources"], &[]);
}
