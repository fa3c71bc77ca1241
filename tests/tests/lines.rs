//! One jar for three lines of Tomcat: everything it refers to is there in each, and its sources
//! compile against each, so that what is to override something does.

use std::path::Path;
use std::process::{Command, Output};

use ringtribe_tests::build::{self, Line, everything_for, jar, java_for, root, run_directory};
use ringtribe_tests::debian;

/// Java 8.
const NEWEST_CLASS_FILE: &str = "52";

fn text(output: &Output) -> String {
    let (out, errors) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(errors)
}

fn link_check(command: &mut Command) -> Output {
    let check = command.arg("org.ringtribe.test.LinkCheck").arg(jar()).arg(NEWEST_CLASS_FILE);
    check.output().expect("a JVM")
}

#[test]
fn the_jar_finds_all_it_refers_to_in_each_line() {
    for line in Line::ALL {
        everything_for(line).expect("it builds");
        let output = link_check(&mut java_for(line));
        let said = text(&output);
        assert!(output.status.success(), "Tomcat {}:\n{said}", line.word());
        let count = said.split("CHECKED ").nth(1).and_then(|rest| rest.split(' ').next());
        let classes: usize = count.and_then(|count| count.parse().ok()).expect("a count");
        assert!(classes >= 40, "{said}");
        println!("Tomcat {}: {}", line.word(), said.trim());
    }
}

#[test]
fn a_tomcat_that_lacks_something_is_noticed() {
    // Tribes of 10.1 alone: no session manager, no cluster.
    everything_for(Line::V10_1).expect("it builds");
    let libraries = Line::V10_1.libraries();
    let directory = libraries.trim_end_matches("/*");
    let found = std::fs::read_dir(directory).expect("the jars").flatten();
    let mut class_path: Vec<String> = found
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains("tribes-") || path.contains("juli-"))
        .collect();
    let whole = build::class_path(Line::V10_1);
    let ours: Vec<&str> = whole.split(':').take(2).collect();
    class_path.extend(ours.into_iter().map(str::to_owned));
    let output = link_check(Command::new("java").arg("-cp").arg(class_path.join(":")));
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("MISSING org/ringtribe/tomcat/RingtribeCluster needs"), "{said}");
}

#[test]
fn the_jar_finds_all_it_refers_to_in_debians_tomcat() {
    if !debian::is_installed() {
        return;
    }
    everything_for(Line::V10_1).expect("it builds");
    let whole = build::class_path(Line::V10_1);
    let mut class_path: Vec<String> = whole.split(':').take(2).map(str::to_owned).collect();
    let found = std::fs::read_dir("/usr/share/java").expect("a directory").flatten();
    class_path.extend(
        found
            .map(|entry| entry.path().display().to_string())
            .filter(|path| path.contains("/tomcat10-") && path.ends_with(".jar")),
    );
    let output = link_check(Command::new("java").arg("-cp").arg(class_path.join(":")));
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_sources_compile_against_each_line() {
    fn java_files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                java_files(&path, found);
            } else if path.extension().is_some_and(|end| end == "java") {
                found.push(path);
            }
        }
    }
    let mut sources = Vec::new();
    java_files(&root().join("ffi/java/src/main/java"), &mut sources);
    for line in Line::ALL {
        everything_for(line).expect("it builds");
        let classes = run_directory().join(format!("compiled-{}", line.word()));
        std::fs::create_dir_all(&classes).expect("a directory");
        let output = Command::new("javac")
            .args(["-Xlint:-options", "-proc:none", "-cp", &line.libraries(), "-d"])
            .arg(&classes)
            .args(&sources)
            .output()
            .expect("javac");
        assert!(output.status.success(), "Tomcat {}:\n{}", line.word(), text(&output));
    }
}
