//! WebSocket frames as they go out: made once, shared by everybody who gets the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// Final text frame, unmasked (RFC 6455, 5.2).
const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
/// The longest payload whose length stands in the second byte, and the marks of longer ones.
const SHORT: usize = 125;
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

/// A whole frame, header and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// A message of text.
    pub fn text(text: &str) -> Frame {
        let mut frame = BytesMut::with_capacity(10 + text.len());
        frame.put_u8(TEXT);
        match (text.len(), u16::try_from(text.len())) {
            (short @ 0..=SHORT, _) => frame.put_u8(short as u8),
            (_, Ok(medium)) => {
                frame.put_u8(TWO_BYTES);
                frame.put_u16(medium);
            }
            (long, Err(_)) => {
                frame.put_u8(EIGHT_BYTES);
                frame.put_u64(long as u64);
            }
        }
        frame.put_slice(text.as_bytes());
        Frame(frame.freeze())
    }

    /// A ping without payload.
    pub(super) fn ping() -> Frame {
        Frame(Bytes::from_static(&[PING, 0]))
    }

    /// From bytes that [`Frame::bytes`] gave.
    pub(super) fn from_bytes(bytes: Bytes) -> Frame {
        Frame(bytes)
    }

    /// What a reader makes of it.
    #[cfg(test)]
    pub(super) fn payload(&self) -> String {
        use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
        let wire = std::io::Cursor::new(self.0.to_vec());
        let read = WebSocket::from_raw_socket(wire, Role::Client, None).read();
        read.map(|message| message.to_string()).unwrap_or_default()
    }

    /// The frames that these bytes are.
    #[cfg(test)]
    pub(super) fn split(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let [_, length, rest @ ..] = bytes {
            let (header, length) = match (*length, rest) {
                (TWO_BYTES, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                (length, _) => (2, usize::from(length)),
            };
            let (frame, others) = bytes.split_at(header + length);
            frames.push(Frame(Bytes::copy_from_slice(frame)));
            bytes = others;
        }
        frames
    }

    /// What goes over the wire.
    pub fn bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Frame {
        Frame::text(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_read_as_they_were_written() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let text = "ä".repeat(length / 2) + &"x".repeat(length % 2);
            assert_eq!(Frame::text(&text).payload(), text);
        }
    }
}
