//! Writes the seeds of all targets: `seeds DIRECTORY` makes `DIRECTORY/TARGET/seed-N`.

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).expect("give a directory");
    for target in ringtribe_fuzz::TARGETS {
        let below = std::path::Path::new(&directory).join(target.name);
        std::fs::create_dir_all(&below)?;
        for (number, seed) in ringtribe_fuzz::seeds::of(target.name).iter().enumerate() {
            std::fs::write(below.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
