//! The wall clock of a server, which jumps when the test says so. No code of the server knows of it: a small library
//! is loaded before libc (`clock.c`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// The clock of one or more servers.
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock that is right.
    pub fn new() -> Clock {
        // `LD_PRELOAD` cannot name a path with a blank, and programs may not run from where `TMPDIR` is.
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        make(&folder.path().join(LIBRARY));
        let clock = Clock { folder };
        clock.shift(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("shift")
    }

    /// What a server with this clock has to be started with.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let library = self.folder.path().join(LIBRARY);
        vec![("LD_PRELOAD", library.display().to_string()), ("CLOCK_FILE", self.file().display().to_string())]
    }

    /// Sets it to so many seconds before or behind the right time.
    pub fn shift(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(self.file());
        let written = file.and_then(|file| file.write_all_at(&(seconds * 1000).to_ne_bytes(), 0));
        written.expect("the shift is written");
    }

    /// So many seconds away for a while, then right again: two jumps.
    pub async fn jump(&self, seconds: i64, time: Duration) {
        self.shift(seconds);
        tokio::time::sleep(time).await;
        self.shift(0);
    }
}

const LIBRARY: &str = "clock.so";

/// Compiles the library.
fn make(library: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
    // As `make` and others read it: with arguments, if need be.
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    command.args(words).args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source);
    let done = command.status();
    assert!(done.as_ref().is_ok_and(|status| status.success()), "{command:?}: {done:?}");
}
