//! The load generator's own reader of frames, against tungstenite's.

use std::io::Cursor;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio_tungstenite::tungstenite::protocol::frame::FrameSocket;

use super::frame;
use crate::fuzz::Fuzz;

#[test]
fn any_bytes_are_the_frames_that_tungstenite_finds() {
    let length = select(vec![0, 1, 125, 126, 127, 65_535, 65_536]);
    let one = (select(vec![1_u8, 2, 8, 9, 10]), length, any::<u8>(), any::<bool>());
    let one = one.prop_map(|(opcode, length, byte, masked)| {
        let (mut bytes, payload) = (Vec::new(), vec![byte; length]);
        match masked {
            true => frame::put(&mut bytes, opcode, &payload),
            false => frame::put_unmasked(&mut bytes, opcode, &payload),
        }
        bytes
    });
    let frames = vec(one, 1..4).prop_map(|frames| frames.concat());
    Fuzz::new("frames of the load generator", 3000).corpus([[0x81, 1, b'x']]).grammar(frames).run(|input| {
        let mut theirs = FrameSocket::new(Cursor::new(input.to_vec()));
        let mut rest = input;
        let mut good = false;
        while let Ok(Some(ours)) = frame::first(rest) {
            // A head that cannot be is for whoever reads the frame to refuse.
            let Ok(Some(their)) = theirs.read(None) else { break };
            assert_eq!((ours.opcode, ours.payload), (u8::from(their.header().opcode), their.payload()));
            assert_eq!(frame::first(&rest[..ours.size - 1]).unwrap(), None, "a part is no whole");
            rest = &rest[ours.size..];
            good = true;
        }
        // What clients send, with a mask or without.
        if let Ok(Some((opcode, payload, size))) = frame::first_of_client(input) {
            assert!(size <= input.len() && opcode < 16 && payload.len() < size);
        }
        good
    });
}
