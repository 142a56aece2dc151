//! How inputs are damaged.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

/// Longer inputs are cut.
const LONGEST: usize = 1 << 17;

/// What has been trouble in many languages.
pub(super) const WORDS: &[&[u8]] = &[
    b"\0",
    b"\x7f",
    b"\xff",
    b"\xc0\x80",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    "é".as_bytes(),
    "İ".as_bytes(),
    "\u{1F600}".as_bytes(),
    "\u{3000}".as_bytes(),
    b"\\u0000",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\ud83d\\ude00",
    b"\\",
    b"\"",
    b"'",
    b"0",
    b"-0",
    b"-1",
    b"1e999",
    b"-1e-999",
    b"1e308",
    b"0.1",
    b"00",
    b"255",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"999999999999999999999999999999",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b",",
    b" ",
    b"\t",
    b"\r\n",
    b"\n",
    b"%",
    b"%00",
    b"%zz",
    b"%ff",
    b"+",
    b"&",
    b"=",
    b";",
    b".",
    b"..",
    b"/",
    b"//",
    b"$",
    b"__",
    b"-",
    b"*",
    b"(",
    b")",
    b"68f0aa11bb22cc33dd44ee55",
    b"2026-01-01T00:00:00",
];

/// Pairs to put around an input, many times.
const AROUND: &[(&[u8], &[u8])] =
    &[(b"[", b"]"), (b"{\"a\":", b"}"), (b"(", b")"), (b"{\"not\":", b"}"), (b"\"", b"\""), (b"a.", b"")];

/// Inputs of all kinds: good ones, made ones, noise, each damaged in some places or in none.
pub(super) fn inputs(
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    grammar: BoxedStrategy<Vec<u8>>,
) -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..48).boxed();
    let known = match corpus.is_empty() {
        true => grammar.clone(),
        false => proptest::sample::select(corpus.clone()).boxed(),
    };
    let base = prop_oneof![10 => known, 9 => grammar, 1 => noise];
    let change = any::<(u8, u32, u32, u32)>();
    let changes = prop_oneof![2 => Just(Vec::new()), 3 => vec(change, 1..5), 1 => vec(change, 5..20)];
    let (corpus, words) = (Arc::new(corpus), Arc::new(words));
    (base, changes).prop_map(move |(mut input, changes)| {
        for change in changes {
            apply(&mut input, change, &corpus, &words);
            input.truncate(LONGEST);
        }
        input
    })
}

/// One damage: what is decided by the first number, where and how by the others.
fn apply(input: &mut Vec<u8>, (what, a, b, c): (u8, u32, u32, u32), corpus: &[Vec<u8>], words: &[Vec<u8>]) {
    let place = |number: u32, length: usize| number as usize % (length + 1);
    let at = place(a, input.len());
    // Most pieces are short, some are as long as can be.
    let end = at + place(b, if c.is_multiple_of(4) { input.len() - at } else { (input.len() - at).min(8) });
    let word = || words.get(b as usize % words.len().max(1)).map_or(&b""[..], Vec::as_slice);
    match what % 16 {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << (b % 8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = (b % 256) as u8;
            }
        }
        3..=5 => drop(input.splice(at..at, word().iter().copied())),
        6 => drop(input.splice(at..end, word().iter().copied())),
        7 => drop(input.drain(at..end)),
        8 => {
            let times = if c.is_multiple_of(16) { place(c / 16, 2000) } else { 1 + place(c, 3) };
            let times = times.min(LONGEST / (end - at).max(1));
            let piece = input[at..end].repeat(times);
            input.splice(at..at, piece);
        }
        9 => input.truncate(at),
        10 | 11 => {
            if let Some(other) = corpus.get(c as usize % corpus.len().max(1)) {
                input.truncate(at);
                input.extend(&other[place(b, other.len())..]);
            }
        }
        12 => {
            let (before, behind) = AROUND[b as usize % AROUND.len()];
            let times = if c.is_multiple_of(16) { place(c / 16, 5000) } else { place(c, 80) };
            let (start, end) = if c.is_multiple_of(3) { (0, input.len()) } else { (at, end) };
            let piece = [&before.repeat(times), &input[start..end], &behind.repeat(times)].concat();
            input.splice(start..end, piece);
        }
        13 => number(input, at, word()),
        14 => {
            let piece: Vec<u8> = input.drain(at..end).collect();
            let to = place(c, input.len());
            input.splice(to..to, piece);
        }
        _ => input[at..end].reverse(),
    }
}

/// Puts something else for the first number behind a place.
fn number(input: &mut Vec<u8>, at: usize, with: &[u8]) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) else {
        return;
    };
    let end = input[start..].iter().position(|byte| !byte.is_ascii_digit());
    input.splice(start..end.map_or(input.len(), |offset| start + offset), with.iter().copied());
}
