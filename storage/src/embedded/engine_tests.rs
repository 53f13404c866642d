//! What a process that died leaves of an engine.

use super::*;

fn open(path: &Path) -> StoreResult<Engine> {
    let config = config::Config::from_parts(None, []).expect("defaults").storage;
    Engine::open(path, &config)
}

#[test]
fn an_engine_whose_maker_died_at_any_byte_of_its_version_mark_is_made_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("engine");
    drop(open(&path).expect("made"));
    let mark = fs::read(path.join("version")).expect("the mark");
    assert_eq!(mark.len() as u64, VERSION_BYTES);
    for length in 0..mark.len() {
        // As the engine makes it: the folder of keyspaces and the first journal are there before the mark.
        fs::remove_dir_all(&path).expect("cleared");
        fs::create_dir_all(path.join("keyspaces")).expect("a folder");
        for file in ["lock", "0.jnl"] {
            fs::write(path.join(file), b"").expect("written");
        }
        fs::write(path.join("version"), &mark[..length]).expect("written");
        let engine = open(&path).unwrap_or_else(|error| panic!("after {length} bytes: {error}"));
        assert_eq!(engine.get(&keys::owner()), Ok(None));
    }
}

#[test]
fn tables_without_a_whole_version_mark_are_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("engine");
    drop(open(&path).expect("made"));
    for mark in [Some(&b"FJ"[..]), None] {
        let place = path.join("version");
        match mark {
            Some(bytes) => fs::write(&place, bytes).expect("written"),
            None => fs::remove_file(&place).expect("removed"),
        }
        let told = open(&path).err().expect("refused");
        assert!(matches!(&told, StoreError::Corrupt(text) if text.contains("version")), "{told}");
        assert!(path.join("keyspaces").join("1").is_dir(), "nothing is taken away");
    }
}
