//! The wall clock of a server, which jumps when the test says so. No code of the server knows of it: a small library
//! is loaded before libc (`clock.c`).

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

/// The clock of one or more servers.
pub struct Clock {
    folder: TempDir,
}

/// Where the library was made; not at all without a C compiler.
fn library() -> Option<&'static PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        let made =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{}.so", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let done =
            Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&made).arg(source).status();
        done.is_ok_and(|status| status.success()).then_some(made)
    };
    MADE.get_or_init(make).as_ref()
}

impl Clock {
    /// A clock that is right; `None` where clocks cannot be moved.
    pub fn new() -> Option<Clock> {
        library()?;
        let clock = Clock { folder: tempfile::tempdir().expect("a folder") };
        clock.shift(0);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("shift")
    }

    /// What a server with this clock has to be started with.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let library = library().expect("made before");
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
