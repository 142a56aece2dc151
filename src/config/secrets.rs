//! Secrets: from the environment or from files. Never from the command line, which everybody on the machine can read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

/// A shorter key can be found by trying, and whoever has it is whom they like (RFC 7518: as long as the hash).
const SHORTEST_KEY: usize = 32;
/// Rights of others than the owner that a file with a secret should not give: any to strangers, writing to its group.
const OPEN_MODE: u32 = 0o027;

/// The files that secrets may stand in, and what was read.
#[derive(Args, Clone, Default)]
pub struct Secrets {
    /// File with the key that tokens are signed with, of at least 32 bytes; or the key itself in the variable `SECRET_KEY`.
    /// Without either one is generated and kept in the data folder.
    #[arg(long, env = "SECRET_KEY_FILE")]
    secret_key_file: Option<PathBuf>,
    /// File with a second key that tokens may be signed with (tokens of other KernelCI services); or the key itself in the
    /// variable `UNIFIED_SECRET`.
    #[arg(long, env = "UNIFIED_SECRET_FILE")]
    unified_secret_file: Option<PathBuf>,
    /// Whether keys of less than 32 bytes are taken, for sites that have one: better give it a new one.
    #[arg(long, env = "ALLOW_SHORT_SECRET", default_value_t = false, action = clap::ArgAction::Set)]
    allow_short_secret: bool,
    /// File with the password for the SMTP server; or the password itself in the variable `EMAIL_PASSWORD`. Without either we
    /// do not log in.
    #[arg(long, env = "EMAIL_PASSWORD_FILE")]
    email_password_file: Option<PathBuf>,
    /// File with the password of the first admin; or the password itself in the variable `KCI_INITIAL_PASSWORD`. Without
    /// either one is generated and printed once.
    #[arg(long, env = "KCI_INITIAL_PASSWORD_FILE")]
    initial_password_file: Option<PathBuf>,

    /// The key that tokens are signed with.
    #[arg(skip)]
    pub secret_key: Option<String>,
    /// The second key that tokens may be signed with.
    #[arg(skip)]
    pub unified_secret: Option<String>,
    /// The password for the SMTP server.
    #[arg(skip)]
    pub email_password: Option<String>,
    /// The password of the first admin.
    #[arg(skip)]
    pub initial_password: Option<String>,
}

/// Says nothing of them.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Reads all of them from the environment and the files that are set; warns of files that others can read.
    pub fn read(&mut self) -> Result<()> {
        self.secret_key = secret("SECRET_KEY", self.secret_key_file.as_deref())?;
        // KernelCI's own server takes a blank one for none.
        self.unified_secret = secret("UNIFIED_SECRET", self.unified_secret_file.as_deref())?
            .filter(|secret| !secret.trim().is_empty());
        self.email_password = secret("EMAIL_PASSWORD", self.email_password_file.as_deref())?;
        self.initial_password = secret("KCI_INITIAL_PASSWORD", self.initial_password_file.as_deref())?;
        for (name, key) in self.keys() {
            if key.len() < SHORTEST_KEY && self.allow_short_secret {
                tracing::warn!(
                    "{name} has {} bytes: others can find it by trying, give it a new one",
                    key.len()
                );
            }
        }
        Ok(())
    }

    /// A sentence if a key is too short.
    pub(super) fn check(&self) -> Result<()> {
        self.keys().try_for_each(|(name, key)| self.check_key(name, key))
    }

    /// A sentence if this key is too short.
    pub fn check_key(&self, name: &str, key: &str) -> Result<()> {
        if key.trim().is_empty() {
            bail!("{name} is blank: leave it out to have one generated, or give it a long random value");
        }
        if key.len() < SHORTEST_KEY && !self.allow_short_secret {
            bail!(
                "{name} has {} bytes, expected at least {SHORTEST_KEY}: others could find it by trying. `openssl rand -hex 32` \
                 makes one; ALLOW_SHORT_SECRET=true takes it for the time being",
                key.len()
            );
        }
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = [("SECRET_KEY", &self.secret_key), ("UNIFIED_SECRET", &self.unified_secret)];
        keys.into_iter().filter_map(|(name, key)| Some((name, key.as_deref()?)))
    }
}

/// The secret of this variable, or of the file that `<name>_FILE` names.
fn secret(name: &str, file: Option<&Path>) -> Result<Option<String>> {
    let given = match std::env::var(name) {
        Ok(secret) => Some(secret).filter(|secret| !secret.is_empty()),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    };
    match (given, file) {
        (Some(_), Some(_)) => bail!("{name} and {name}_FILE are both set: leave one out"),
        (None, Some(file)) => read(&format!("{name}_FILE"), file).map(Some),
        (given, None) => Ok(given),
    }
}

/// What stands in the file, without the end of the line.
fn read(name: &str, file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{name} is {}", file.display()))?;
    warn_of_mode(file);
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("{name} is {}, which is empty", file.display());
    }
    Ok(secret.to_owned())
}

/// Warns if others can read the file, or change it.
pub fn warn_of_mode(file: &Path) {
    let Ok(facts) = std::fs::metadata(file) else { return };
    let mode = facts.permissions().mode() & 0o777;
    if mode & OPEN_MODE != 0 {
        tracing::warn!(
            file = %file.display(),
            mode = format!("{mode:04o}"),
            "a secret stands in a file that others can read or change: chmod 600 it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_can_be_found_by_trying_is_refused() {
        let short = Secrets { secret_key: Some("x".repeat(31)), ..Secrets::default() };
        let error = short.check().unwrap_err().to_string();
        assert!(
            error.starts_with("SECRET_KEY has 31 bytes") && error.contains("ALLOW_SHORT_SECRET"),
            "{error}"
        );
        Secrets { allow_short_secret: true, ..short }.check().unwrap();
        Secrets { secret_key: Some("x".repeat(32)), ..Secrets::default() }.check().unwrap();
        let unified = Secrets { unified_secret: Some("x".into()), ..Secrets::default() };
        assert!(unified.check().unwrap_err().to_string().starts_with("UNIFIED_SECRET has 1 bytes"));
        let blank =
            Secrets { secret_key: Some(" ".repeat(40)), allow_short_secret: true, ..Secrets::default() };
        assert!(blank.check().unwrap_err().to_string().contains("blank"));
    }

    #[test]
    fn a_file_is_read_to_the_end_of_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for (text, secret) in [("a b", "a b"), ("a b\n", "a b"), (" a \r\n", " a "), ("a\n\n", "a\n")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read("X_FILE", &file).unwrap(), secret);
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(read("X_FILE", &file).unwrap_err().to_string().contains("empty"));
        let error = format!("{:#}", read("X_FILE", &folder.path().join("none")).unwrap_err());
        assert!(error.starts_with("X_FILE is "), "{error}");
    }
}
