//! The first start: the first admin, the signing secret, the group that KernelCI's own daemons are in.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rand::RngExt;

use super::passwords::Passwords;
use super::rights::EDIT_ANY;
use crate::config::Config;
use crate::config::secrets::warn_of_mode;
use crate::model::{ObjectId, User, username};
use crate::store::{Store, users::Taken};

/// Names of KernelCI's own daemons, who may edit every node (contract 3.4): users who have always had one of them.
pub const DAEMONS: &[&str] = &["staging.kernelci.org", "production"];

/// The first admin, just made.
#[derive(Debug)]
pub struct FirstAdmin {
    /// Username.
    pub username: String,
    /// The password if it was generated; the only time that anybody sees it.
    pub generated_password: Option<String>,
}

/// Makes the first admin if there is no active superuser (contract 6.9), and the group of the daemons.
pub async fn users(store: &dyn Store, passwords: &Passwords, config: &Config) -> Result<Option<FirstAdmin>> {
    store.ensure_group(EDIT_ANY, DAEMONS).await?;
    if store.has_superuser().await? {
        return Ok(None);
    }
    let username = config.initial_admin_username.clone();
    if username::check(&username).is_err() {
        bail!(
            "KCI_INITIAL_ADMIN_USERNAME is {username:?}: expected 1 to 64 of letters, digits and . _ @ + -"
        );
    }
    let generated_password = config.secrets.initial_password.is_none().then(|| random_text(20));
    let password =
        config.secrets.initial_password.clone().or_else(|| generated_password.clone()).unwrap_or_default();
    let email = config.initial_admin_email.clone().unwrap_or_else(|| format!("{username}@kernelci.org"));
    let admin = User {
        id: ObjectId::new(),
        username: username.clone(),
        email,
        hashed_password: passwords.own_turn().hash(&password).await?,
        is_active: true,
        is_superuser: true,
        is_verified: true,
        ..User::default()
    };
    if let Some(taken) = store.insert_user(&admin).await? {
        // Another instance that starts at the same moment may have been first.
        if store.has_superuser().await? {
            return Ok(None);
        }
        bail!(
            "the first admin cannot be made: {} is taken by a user who is no active superuser",
            match taken {
                Taken::Username => &admin.username,
                Taken::Email => &admin.email,
            }
        );
    }
    Ok(Some(FirstAdmin { username, generated_password }))
}

/// The signing secret: the setting, or the one kept in the data folder, made at the first start.
pub fn secret(config: &Config) -> Result<String> {
    if let Some(secret) = &config.secrets.secret_key {
        return Ok(secret.clone());
    }
    let path = config.data.join("secret_key");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => {
            warn_of_mode(&path);
            config.secrets.check_key(&path.display().to_string(), text.trim())?;
            return Ok(text.trim().to_owned());
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let secret = random_text(48);
    write_private(&path, &secret).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(secret)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path.parent() {
        // Password hashes will be in there, too.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Letters and digits that cannot be mistaken for one another.
pub fn random_text(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut random = rand::rng();
    (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}
