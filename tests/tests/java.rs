//! The Java side's own tests, under `-Xcheck:jni`.

use std::process::Command;

use ringtribe_tests::build;

#[test]
fn the_java_tests_pass_and_the_jvm_finds_no_fault_in_the_bridge() {
    build::everything().expect("it builds");
    let project = build::root().join("ffi/java/pom.xml");
    let reports = build::root().join("ffi/java/target/surefire-reports");
    if reports.exists() {
        std::fs::remove_dir_all(&reports).expect("reports of an earlier run");
    }
    let output = Command::new("mvn")
        .args(["-B", "-f"])
        .arg(project)
        .arg("test")
        // Cargo's own would lead to a library of an earlier build.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .expect("Maven runs");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    // What the JVM itself prints is no message of its tests: Maven puts it into files of its own.
    for entry in std::fs::read_dir(&reports).expect("reports of this run").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "dumpstream" || end == "dump") {
            text += &std::fs::read_to_string(&path).expect("a text");
        }
    }
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Tests run: 139, Failures: 0, Errors: 0, Skipped: 0"), "{text}");
    for complaint in [
        "FATAL ERROR in native method",
        "WARNING in native method",
        "WARNING: JNI",
        "WARNING: Critical",
    ] {
        assert!(!text.contains(complaint), "{text}");
    }
}
