//! The Java side's own tests, under `-Xcheck:jni`.

use std::process::Command;

use ringtribe_tests::build;

#[test]
fn the_java_tests_pass_and_the_jvm_finds_no_fault_in_the_bridge() {
    build::everything().expect("it builds");
    let project = build::root().join("ffi/java/pom.xml");
    let output = Command::new("mvn")
        .args(["-B", "-f"])
        .arg(project)
        .arg("test")
        .output()
        .expect("Maven runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Tests run: 43, Failures: 0, Errors: 0, Skipped: 0"), "{text}");
    for complaint in ["FATAL ERROR in native method", "WARNING in native method"] {
        assert!(!text.contains(complaint), "{text}");
    }
}
