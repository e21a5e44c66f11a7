//! Writes the good bytes from which fuzzing begins, a folder for each door of `petrel_tests::hostile`: `hostile_corpus DIR`.

use std::path::Path;

use petrel_tests::hostile::DOORS;

fn main() -> std::io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: hostile_corpus DIR");
        std::process::exit(2);
    };
    for door in &DOORS {
        let folder = Path::new(&dir).join(door.name);
        std::fs::create_dir_all(&folder)?;
        for (n, bytes) in (door.corpus)().iter().enumerate() {
            std::fs::write(folder.join(format!("good-{n}")), bytes)?;
        }
    }
    Ok(())
}
