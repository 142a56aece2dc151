//! What the server writes to its users.

/// A mail in plain text.
#[derive(Clone, Debug)]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// Lines.
    pub text: String,
}

fn letter(subject: &str, username: &str, text: &str) -> Letter {
    let text = format!("Hello {username},\n\n{text}\n\nKernelCI\n");
    Letter { subject: format!("{subject} for your KernelCI account"), text }
}

/// With a link to choose a password.
pub fn invitation(username: &str, url: &str) -> Letter {
    let text = format!(
        "an account has been made for you. To choose a password and confirm this address, open\n\n{url}\n\n\
         If you do not expect this, you can leave it alone."
    );
    letter("Invitation", username, &text)
}

/// With the token to choose a new password with.
pub fn forgotten_password(username: &str, token: &str) -> Letter {
    let text = format!(
        "somebody, probably you, has asked for a new password. This token sets it, within the next hour:\n\n{token}\n\n\
         If it was not you, you can leave this alone: nothing has changed."
    );
    letter("Token for a new password", username, &text)
}

/// After a password was set with a mailed token.
pub fn password_was_reset(username: &str) -> Letter {
    let text = "your password has been set anew, and all tokens of before have ended.\n\n\
                If it was not you, please tell an admin at once.";
    letter("New password", username, text)
}

/// With the token that confirms an address.
pub fn verification(username: &str, token: &str) -> Letter {
    let text = format!(
        "please confirm that this is your address. This token does it, within the next hour:\n\n{token}\n\n\
         If you do not expect this, you can leave it alone."
    );
    letter("Confirmation of the address", username, &text)
}
