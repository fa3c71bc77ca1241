//! Writes the seeds of all targets: `seeds DIRECTORY` makes `DIRECTORY/TARGET/seed-N`.

use std::path::Path;

use ringtribe_fuzz::C_ENTRY;
use ringtribe_fuzz::targets::{TARGETS, seeds};

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).expect("give a directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for target in TARGETS.iter().chain([&C_ENTRY]) {
        let below = Path::new(&directory).join(target.name);
        std::fs::create_dir_all(&below)?;
        for (number, seed) in seeds::of(&root, target.name).iter().enumerate() {
            std::fs::write(below.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
