//! As much of the WebSocket protocol as a load generator needs: frames are found in what came in without copying it.

use anyhow::{Result, bail};

/// Opcodes.
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// Larger frames are not expected from anybody.
const LARGEST: u64 = 64 << 20;

/// A whole frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// Bytes that it takes, header included.
    pub(super) size: usize,
}

/// The frame that `bytes` begin with; `None` if it is not all there.
pub(super) fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let &[head, length, ..] = bytes else { return Ok(None) };
    if head & 0xf0 != 0x80 || length & 0x80 != 0 {
        bail!("the server sends fragments, extensions or masked frames, which this client does not read");
    }
    let (start, length) = match (length, bytes) {
        (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        (126, [_, _, a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, u64::from(short)),
    };
    if length > LARGEST {
        bail!("the server sends a frame of {length} bytes");
    }
    let size = start + length as usize;
    Ok(bytes.get(start..size).map(|payload| Frame { opcode: head & 0xf, payload, size }))
}

/// Puts a frame to `out` as a client sends it.
pub(super) fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0x80);
    // Clients have to mask what they send; with this mask it stays what it is, which saves a pass.
    out.extend([0; 4]);
    out.extend(payload);
}

/// Puts a frame to `out` as a server sends it.
pub(super) fn put_unmasked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0);
    out.extend(payload);
}

fn header(out: &mut Vec<u8>, opcode: u8, length: usize, mask: u8) {
    out.push(0x80 | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => out.push(mask | short),
        (_, Ok(middle)) => {
            out.push(mask | 126);
            out.extend(middle.to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
}

/// Takes the mask off a client's frame; `None` if it is not all there.
pub(super) fn first_of_client(bytes: &[u8]) -> Result<Option<(u8, Vec<u8>, usize)>> {
    let Some(&length) = bytes.get(1) else { return Ok(None) };
    let mut plain = Vec::new();
    let at = 2 + match length & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(mask) = bytes.get(at..at + 4) else { return Ok(None) };
    plain.extend(&bytes[..at]);
    plain[1] &= 0x7f;
    let rest = &bytes[at + 4..];
    plain.extend(rest.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(first(&plain)?.map(|frame| (frame.opcode, frame.payload.to_vec(), frame.size + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_again_and_parts_are_not_taken_for_a_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            put_unmasked(&mut bytes, TEXT, &payload);
            let size = bytes.len();
            assert_eq!(first(&bytes[..size - 1]).unwrap(), None);
            bytes.extend(b"more");
            assert_eq!(first(&bytes).unwrap(), Some(Frame { opcode: TEXT, payload: &payload, size }));

            let mut bytes = Vec::new();
            put(&mut bytes, BINARY, &payload);
            let size = bytes.len();
            assert_eq!(first_of_client(&bytes[..size - 1]).unwrap(), None);
            assert_eq!(first_of_client(&bytes).unwrap(), Some((BINARY, payload, size)));
        }
        assert!(first(&[0x01, 0]).is_err(), "a fragment");
        assert!(first(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_err(), "too large");
    }
}
