//! What the server writes to its users.
//!
//! Anybody may say that an address is theirs, and have it written to. So nothing of what users choose goes to an address
//! that is not confirmed, not even their name.

use crate::model::User;

/// A mail in plain text.
#[derive(Clone, Debug)]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// Lines.
    pub text: String,
}

fn letter(subject: &str, to: &User, text: &str) -> Letter {
    let hello = if to.is_verified { format!("Hello {},", to.username) } else { "Hello,".to_owned() };
    let text = format!("{hello}\n\n{text}\n\nKernelCI\n");
    Letter { subject: format!("{subject} for your KernelCI account"), text }
}

/// With a link to choose a password.
pub fn invitation(to: &User, url: &str) -> Letter {
    let text = format!(
        "an account has been made for you. To choose a password and confirm this address, open\n\n{url}\n\n\
         If you do not expect this, you can leave it alone."
    );
    letter("Invitation", to, &text)
}

/// With the token to choose a new password with.
pub fn forgotten_password(to: &User, token: &str) -> Letter {
    let text = format!(
        "somebody, probably you, has asked for a new password. This token sets it, within the next hour:\n\n{token}\n\n\
         If it was not you, you can leave this alone: nothing has changed."
    );
    letter("Token for a new password", to, &text)
}

/// After a password was set with a mailed token.
pub fn password_was_reset(to: &User) -> Letter {
    let text = "your password has been set anew, and all tokens of before have ended.\n\n\
                If it was not you, please tell an admin at once.";
    letter("New password", to, text)
}

/// With the token that confirms an address.
pub fn verification(to: &User, token: &str) -> Letter {
    let text = format!(
        "please confirm that this is your address. This token does it, within the next hour:\n\n{token}\n\n\
         If you do not expect this, you can leave it alone."
    );
    letter("Confirmation of the address", to, &text)
}
