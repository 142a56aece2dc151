//! Whatever bytes a peer sends on its socket, in whatever pieces: the same is heard, and what we say can be read.

use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

use axum::http::Request;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::error::{Error as Broken, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::frame::Frame;
use super::handshake::Handshake;
use super::limits;
use super::outbox::{Io, Outbox};
use crate::fuzz::{Fuzz, corpus, cuts, headers};

/// A frame of a client. What it announces need not be what it brings.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => select(vec![0x81, 0x01, 0x80, 0x00, 0x82, 0x89, 0x8a, 0x88, 0x09, 0x08]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        5 => select(vec!["{}", "", "hello", "é", "日本", "{\"id\":1}", "\u{3}\u{e8}bye"]).prop_map(|text| text.as_bytes().to_vec()),
        2 => vec(any::<u8>(), 0..8),
        1 => (select(vec![125, 126, 127, 1023, 1024, 1025, 65_535, 65_536]), any::<u8>())
            .prop_map(|(length, byte)| vec![byte & 0x7f; length]),
    ];
    let announced = prop_oneof![
        20 => Just(None),
        1 => any::<u64>().prop_map(Some),
        1 => select(vec![0, 125, 1 << 20, (1 << 20) + 1, 1 << 40, u64::MAX]).prop_map(Some),
    ];
    let masked = prop_oneof![20 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    (first, payload, announced, 0_u8..12, masked).prop_map(|(first, mut payload, announced, form, masked)| {
        let length = announced.unwrap_or(payload.len() as u64);
        let mask_bit = if masked.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            // Some say short lengths in long words.
            0..126 if form > 1 => frame.push(mask_bit | length as u8),
            0..65_536 if form > 0 => {
                frame.push(mask_bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | 127);
                frame.extend(length.to_be_bytes());
            }
        }
        if let Some(mask) = masked {
            frame.extend(mask);
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        frame.extend(payload);
        frame
    })
}

/// What is heard of a peer.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary,
    /// A rule was broken: in which way.
    Broken(&'static str),
}

fn way(error: &Broken) -> &'static str {
    match error {
        Broken::Capacity(_) => "too large",
        Broken::Utf8(_) => "not UTF-8",
        Broken::Protocol(_) => "protocol",
        other => panic!("{other}"),
    }
}

/// A peer that has sent all that it will, and whom nobody answers.
struct Whole(Cursor<Vec<u8>>);

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut self.0, buffer)
    }
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of it at once.
fn at_once(input: &[u8]) -> Vec<Heard> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::Limits::default().message))
        .max_frame_size(Some(limits::Limits::default().message));
    let mut socket =
        WebSocket::from_raw_socket(Whole(Cursor::new(input.to_vec())), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => heard.push(Heard::Text(text.to_string())),
            Ok(Message::Binary(_)) => heard.push(Heard::Binary),
            Ok(_) => {}
            Err(
                Broken::ConnectionClosed
                | Broken::AlreadyClosed
                | Broken::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            ) => return heard,
            Err(error) => {
                heard.push(Heard::Broken(way(&error)));
                return heard;
            }
        }
    }
}

/// What a session hears when it comes in pieces, the first of them together with the handshake; and what it says.
async fn in_pieces(listener: &TcpListener, input: &[u8]) -> (Vec<Heard>, Option<Vec<u8>>) {
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, (server, _)) = (client.unwrap(), server.unwrap());
    client.set_nodelay(true).unwrap();
    let mut cuts = cuts(input);
    let (early, mut rest) = input.split_at(cuts.next().unwrap_or(0) % (input.len() + 1));
    let mut outbox = Outbox::new(server, Bytes::copy_from_slice(early));
    outbox.limit_messages(limits::Limits::default().message);
    let talk = async {
        for size in cuts.take(12) {
            let size = if size % 2 == 0 { size / 2 % 5 } else { size / 2 % (rest.len() + 1) };
            let (piece, others) = rest.split_at(size.min(rest.len()));
            rest = others;
            // It may be gone already.
            _ = client.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        _ = client.write_all(rest).await;
        _ = client.shutdown().await;
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.is_ok().then_some(said)
    };
    let listen = async move {
        let mut heard = Vec::new();
        loop {
            match outbox.io(true).await {
                Io::Text(text) => heard.push(Heard::Text(text.to_string())),
                Io::Binary => heard.push(Heard::Binary),
                Io::Alive | Io::Begun | Io::Drained => {}
                Io::Broken(error) => {
                    heard.push(Heard::Broken(way(&error)));
                    return heard;
                }
                Io::Gone => return heard,
            }
        }
    };
    let (said, heard) = tokio::join!(talk, listen);
    (heard, said)
}

#[test]
fn any_bytes_in_any_pieces_are_heard_as_they_are_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let masked = |text: &String| {
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend((text.len() as u16).to_be_bytes());
        frame.extend([1, 2, 3, 4]);
        frame.extend(text.bytes().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    };
    Fuzz::new("frames", 3000)
        .corpus(corpus::messages().iter().map(masked))
        .words([&[0x81][..], &[0x89, 0x80], &[0x88, 0x80], &[0x01], &[0x80], &[0xff, 0xff, 0xff, 0xff]])
        .grammar(vec(frame(), 1..6).prop_map(|frames| frames.concat()))
        .run(|input| {
            let wanted = at_once(input);
            // Tried again, because machines stand still at times.
            let patience = Duration::from_secs(5);
            let once = || async { tokio::time::timeout(patience, in_pieces(&listener, input)).await.ok() };
            let heard = (0..3).find_map(|_| runtime.block_on(once()));
            let (heard, said) = heard.expect("a session that goes on although its peer is gone");
            let texts = heard.iter().map(|heard| if let Heard::Text(text) = heard { text.len() } else { 0 });
            assert!(texts.sum::<usize>() <= input.len());
            // A peer that has gone without a word may be noticed when it is answered, before all is read.
            let end = Some(&Heard::Broken("protocol"));
            let gone = wanted.last() == end && heard[..] == wanted[..heard.len().min(wanted.len() - 1)];
            assert!(heard == wanted || gone, "{heard:?} instead of {wanted:?}");
            if let Some(said) = said {
                let mut reader = WebSocket::from_raw_socket(Whole(Cursor::new(said)), Role::Client, None);
                while let Ok(message) = reader.read() {
                    assert!(matches!(message, Message::Pong(_) | Message::Close(_)), "{message:?}");
                }
            }
            !matches!(heard.first(), None | Some(Heard::Broken(_)))
        });
}

#[test]
fn any_text_is_read_as_it_was_framed() {
    let long = (select(vec![0, 124, 125, 126, 127, 65_534, 65_535, 65_536, 70_000]), any::<char>());
    let long = long.prop_map(|(length, c)| String::from(c).repeat(length / c.len_utf8()));
    Fuzz::new("our frames", 5000).corpus(corpus::answers()).grammar(long).run(|input| {
        let text = String::from_utf8_lossy(input);
        assert_eq!(Frame::text(&text).payload(), text);
        true
    });
}

#[test]
fn any_handshake_is_taken_or_refused_in_words() {
    const GOOD: &str = "Connection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: a, kernelci.v1.json";
    Fuzz::new("handshakes", 15_000).corpus([GOOD]).words(GOOD.split(['\n', ' '])).run(|input| {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers = headers(input);
        let Err(error) = Handshake::read(&mut parts) else { panic!("there is no connection to upgrade") };
        assert_eq!(error.status(), 400);
        let detail = error.detail().as_str().unwrap();
        assert!(detail.starts_with("this is a WebSocket: "));
        detail.ends_with("cannot be upgraded")
    });
}

#[test]
fn any_authorization_is_a_token_or_none() {
    let corpus = ["Authorization: Bearer eyJ.a.b", "authorization: bearer  x ", "Authorization: Basic YTpi"];
    Fuzz::new("credentials", 15_000).corpus(corpus).words(["Bearer ", "bearer\t"]).run(|input| {
        let headers = headers(input);
        let token = crate::auth::tokens::bearer(&headers);
        assert!(token.is_none_or(|token| token.trim() == token && token.is_ascii()));
        token.is_some()
    });
}
