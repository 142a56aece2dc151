//! Redis' publish and subscribe over a bare connection.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;

use super::{Adapter, Seen, Start, by_mark};
use crate::cli::load::endpoint::Endpoint;
use crate::cli::load::link::Link;

const CHANNEL: &str = "load";

/// `redis-server`; its `client-output-buffer-limit pubsub` cuts slow subscribers off.
#[derive(Debug)]
pub(super) struct Redis {
    pub(super) endpoint: Arc<Endpoint>,
}

#[async_trait]
impl Adapter for Redis {
    async fn connect(&self) -> Result<Link> {
        Link::bare(&self.endpoint).await
    }

    async fn subscribe(&self, link: &mut Link, _: &Start) -> Result<u64> {
        link.send(command(&["SUBSCRIBE", CHANNEL]).as_bytes()).await?;
        link.next(|bytes| match value(bytes)? {
            Some((parts, used)) if parts.first() == Some(&&b"subscribe"[..]) => Ok((used, ())),
            Some((parts, _)) => bail!("SUBSCRIBE is refused: {parts:?}"),
            None => Ok((0, ())),
        })
        .await?;
        Ok(0)
    }

    fn publish(&self, _: u64, payload: &str) -> String {
        command(&["PUBLISH", CHANNEL, payload])
    }

    fn read(&self, bytes: &[u8], hint: &mut usize, seen: &mut dyn FnMut(Seen<'_>)) -> Result<usize> {
        let mut used = 0;
        while let Some((parts, size)) = value(&bytes[used..])? {
            seen(match parts[..] {
                [b"message", _, payload] => by_mark(payload, hint),
                [answer] if answer.starts_with(b":") => Seen::Taken,
                [answer] if answer.starts_with(b"-") => Seen::Trouble(answer),
                _ => Seen::Other,
            });
            used += size;
        }
        Ok(used)
    }

    fn unanswered(&self) -> Option<usize> {
        Some(1024)
    }
}

fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}

type Parts<'a> = Vec<&'a [u8]>;

/// An array of strings and numbers as its parts, or a simple answer as one part with its sign, and the bytes that it
/// takes; `None` if it is not all there.
fn value(bytes: &[u8]) -> Result<Option<(Parts<'_>, usize)>> {
    let mut at = 0;
    let line = |at: &mut usize| -> Option<&[u8]> {
        let rest = bytes.get(*at..)?;
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        *at += end + 2;
        Some(&rest[..end])
    };
    let number = |line: &[u8]| -> Result<usize> {
        let digits = line.get(1..).and_then(|digits| str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).context("Redis sends something unexpected")
    };
    let Some(head) = line(&mut at) else { return Ok(None) };
    if !head.starts_with(b"*") {
        return Ok(Some((vec![head], at)));
    }
    let mut parts = Vec::with_capacity(3);
    for _ in 0..number(head)? {
        let Some(part) = line(&mut at) else { return Ok(None) };
        if part.starts_with(b"$") {
            let length = number(part)?;
            let Some(text) = bytes.get(at..at + length + 2) else { return Ok(None) };
            parts.push(&text[..length]);
            at += length + 2;
        } else {
            parts.push(part);
        }
    }
    Ok(Some((parts, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whole_or_not_yet() {
        let bytes = command(&["message", "load", "a\r\nb"]).into_bytes();
        for end in 0..bytes.len() {
            assert!(value(&bytes[..end]).unwrap().is_none(), "{end}");
        }
        let (parts, used) = value(&bytes).unwrap().unwrap();
        assert_eq!((parts, used), (vec![&b"message"[..], b"load", b"a\r\nb"], bytes.len()));
        assert_eq!(value(b":12\r\n*").unwrap(), Some((vec![&b":12"[..]], 5)));
    }
}
