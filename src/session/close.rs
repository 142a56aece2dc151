//! Why the server ends a session: the table of close codes.

/// A close code with its name and what it tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CloseCode {
    /// On the wire.
    pub code: u16,
    /// Short name, the close reason.
    pub name: &'static str,
    /// What it means and whether to come back.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($constant:ident = $code:literal, $name:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $constant: CloseCode = CloseCode { code: $code, name: $name, meaning: $meaning };)*
        /// The table, for the documentation.
        pub const ALL: &[CloseCode] = &[$($constant),*];
    };
}

codes! {
    BAD_TEXT = 1007, "not UTF-8", "A text frame was not UTF-8. A client's bug.";
    DRAINING = 1012, "draining", "The instance shuts down. Reconnect and resume; `session.closing` said after how long.";
    OVERLOADED = 1013, "overloaded", "Too many sessions on this instance, or too many strangers, or the store or the log is away. Reconnect later.";
    PROTOCOL = 4400, "protocol error", "Not the protocol, e.g. a binary frame. A client's bug.";
    CREDENTIALS = 4401, "credentials", "The token was refused. Get another one.";
    FORBIDDEN = 4403, "forbidden", "Credentials are not accepted from this web origin.";
    TIMEOUT = 4408, "timeout", "No hello or no pong in time, or bytes that stood still on their way. Reconnect and resume.";
    TAKEN_OVER = 4409, "taken over", "Another connection has taken over the durable name of the last subscription of this one, which `unsubscribed` told, and nothing was asked for since. Whoever reconnects and subscribes takes it back.";
    TOO_LARGE = 4413, "too large", "A message was larger than the limit. Large hierarchies go over REST.";
    TOO_MANY = 4429, "too many", "More than the limits allow. Kept for clients that know it: whoever asks too much is not read for a while.";
    INTERNAL = 4500, "server error", "A bug on our side, which is in the log. Reconnect and resume.";
}
