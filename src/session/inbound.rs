//! What comes in on a session's socket, as far as limits are concerned. tungstenite reads the frames, and tells neither
//! how much of a message is there nor in how many pieces it came; so the headers are looked at once more on the way.

/// A header has at most so many bytes (RFC 6455, 5.2).
const LONGEST_HEADER: usize = 14;
const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
/// Opcodes from here on are of control frames, which may stand between the pieces of a message.
const CONTROL: u8 = 0x8;
const CONTINUATION: u8 = 0;
const MASKED: u8 = 0x80;

/// Follows the frames in a stream of bytes, which may be cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    header: [u8; LONGEST_HEADER],
    /// Bytes of the header that are there.
    filled: u8,
    /// Whether the header is complete, and `left` bytes of payload follow.
    in_payload: bool,
    /// Bytes of this frame's payload that are still to come.
    left: u64,
    /// Whether a message has begun that is to be continued.
    continues: bool,
    /// Frames of the message that comes in.
    fragments: u32,
    /// Bytes that came, ever, of messages: not of headers, pings and pongs.
    of_messages: u64,
    /// The same when the message that comes in began.
    before: u64,
}

impl Inbound {
    /// These bytes came.
    pub(super) fn came(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.in_payload { self.payload(bytes) } else { self.header(bytes) };
        }
    }

    /// Bytes of messages that came, ever.
    pub(super) fn of_messages(&self) -> u64 {
        self.of_messages
    }

    /// Bytes that are there of a message that has begun and not ended.
    pub(super) fn held(&self) -> usize {
        let comes = self.continues || (self.in_payload && !self.is_control());
        if comes { usize::try_from(self.of_messages - self.before).unwrap_or(usize::MAX) } else { 0 }
    }

    /// Frames of the message that comes in.
    pub(super) fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Whether a frame or a message has begun and not ended.
    pub(super) fn is_partial(&self) -> bool {
        self.continues || self.in_payload || self.filled > 0
    }

    fn header<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        let filled = usize::from(self.filled);
        self.header[filled] = *first;
        self.filled += 1;
        if filled > 0 && filled + 1 == header_length(self.header[1]) {
            self.begin();
        }
        rest
    }

    /// The header is complete.
    fn begin(&mut self) {
        let [first, second, extended @ ..] = self.header;
        (self.filled, self.in_payload) = (0, true);
        self.left = match second & !MASKED {
            126 => u64::from(u16::from_be_bytes([extended[0], extended[1]])),
            127 => u64::from_be_bytes([
                extended[0],
                extended[1],
                extended[2],
                extended[3],
                extended[4],
                extended[5],
                extended[6],
                extended[7],
            ]),
            short => u64::from(short),
        };
        if !self.is_control() {
            match first & OPCODE {
                CONTINUATION => self.fragments = self.fragments.saturating_add(1),
                _ => (self.fragments, self.before) = (1, self.of_messages),
            }
            self.continues = first & FINAL == 0;
        }
        self.end_if_complete();
    }

    fn payload<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= here as u64;
        self.of_messages += if self.is_control() { 0 } else { here as u64 };
        self.end_if_complete();
        &bytes[here..]
    }

    fn end_if_complete(&mut self) {
        self.in_payload = self.left > 0;
    }

    fn is_control(&self) -> bool {
        self.header[0] & OPCODE >= CONTROL
    }
}

/// From the second byte of a header.
fn header_length(second: u8) -> usize {
    let extended = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + if second & MASKED == 0 { 0 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(MASKED | payload as u8),
            126..65_536 => {
                bytes.push(MASKED | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(MASKED | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([7; 4]);
        bytes.extend(vec![b'x'; payload]);
        bytes
    }

    #[test]
    fn what_is_there_of_a_message_is_known() {
        let mut inbound = Inbound::default();
        inbound.came(&frame(FINAL | 1, 100));
        assert_eq!(inbound.held(), 0, "it is whole");
        inbound.came(&frame(1, 70));
        inbound.came(&frame(FINAL | 9, 20));
        let large = frame(0, 70_000);
        inbound.came(&large[..50_000]);
        assert_eq!(inbound.held(), 70 + 50_000 - (large.len() - 70_000));
        inbound.came(&large[50_000..]);
        assert_eq!(inbound.held(), 70_070);
        inbound.came(&frame(FINAL, 1));
        assert_eq!(inbound.held(), 0);
    }

    #[test]
    fn messages_are_followed_wherever_they_are_cut() {
        let (text, ping, more, last) = (0x81, 0x89, 0x01, 0x80);
        let stream = [
            frame(text, 5),
            frame(ping, 125),
            frame(text, 126),
            frame(more, 70_000),
            frame(ping, 0),
            frame(0, 0),
            frame(last, 3),
        ];
        let whole = stream.concat();
        for size in [1, 2, 3, 7, 64, 1000, whole.len()] {
            let mut inbound = Inbound::default();
            whole.chunks(size).for_each(|piece| inbound.came(piece));
            assert!(!inbound.is_partial(), "{size}");
            assert_eq!((inbound.of_messages(), inbound.fragments()), (5 + 126 + 70_000 + 3, 3));
        }
    }

    #[test]
    fn a_message_is_partial_until_its_end() {
        let mut inbound = Inbound::default();
        inbound.came(&frame(0x81, 5)[..1]);
        assert!(inbound.is_partial(), "half a header");
        inbound.came(&frame(0x81, 5)[1..10]);
        assert!(inbound.is_partial(), "half a payload");
        inbound.came(&frame(0x81, 5)[10..]);
        assert!(!inbound.is_partial());
        inbound.came(&frame(0x01, 5));
        assert!(inbound.is_partial(), "to be continued");
        let before = inbound.of_messages();
        inbound.came(&frame(0x8a, 100));
        assert!(inbound.is_partial() && inbound.of_messages() == before, "a pong is no progress");
        inbound.came(&frame(0x80, 0));
        assert!(!inbound.is_partial());
    }
}
