//! A small disk that can be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::not_tested;

/// A small file system in memory; it goes when this is dropped.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts one of so many MiB at a new folder; `None` if that is not allowed here, which scripts/test will say.
    pub fn mount(at: &Path, mib: u32) -> Option<Disk> {
        std::fs::create_dir_all(at).expect("the folder is made");
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        let refused = match done {
            Ok(output) if output.status.success() => return Some(Disk { at: at.to_owned() }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        not_tested(&format!("a full disk, since none can be mounted here: {}", refused.trim()));
        None
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Leaves not a byte. What is freed again in the meantime (a log that was cut, say) stays free until the next time.
    pub fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.filler()).expect("the filler opens");
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Keeps it full for so long, then makes room.
    pub async fn full_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.fill();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.clear();
    }

    /// Makes room.
    pub fn clear(&self) {
        std::fs::remove_file(self.filler()).expect("the filler is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the server may still have files open there.
        let done = Command::new("umount").arg("-l").arg(&self.at).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.at.display());
        }
    }
}
