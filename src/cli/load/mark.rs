//! The mark that every event of a run carries: its number, and when it was meant to be sent.

use std::time::{Duration, Instant};

/// `load-0000000042-000001234567`: number and microseconds, of fixed width so that it is found and read fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Counts from 0.
    pub(super) number: u64,
    /// Microseconds since the run's clock began, at which it should have been sent.
    pub(super) at: u64,
}

const BEGIN: &[u8] = b"load-";
const NUMBER: usize = 10;
const TIME: usize = 12;
/// Bytes of a mark.
pub(super) const LENGTH: usize = BEGIN.len() + NUMBER + 1 + TIME;

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "load-{:010}-{:012}", self.number, self.at)
    }
}

impl Mark {
    /// The mark in `bytes`. `hint` is where the last one stood; messages of a run are alike.
    pub(super) fn find(bytes: &[u8], hint: &mut usize) -> Option<Mark> {
        if let Some(mark) = bytes.get(*hint..).and_then(Mark::read) {
            return Some(mark);
        }
        let last = bytes.len().checked_sub(LENGTH)?;
        (0..=last).find_map(|at| {
            let mark = Mark::read(&bytes[at..])?;
            *hint = at;
            Some(mark)
        })
    }

    /// The mark that `bytes` begin with.
    fn read(bytes: &[u8]) -> Option<Mark> {
        let (number, rest) = bytes.strip_prefix(BEGIN)?.split_at_checked(NUMBER)?;
        let time = rest.strip_prefix(b"-")?.get(..TIME)?;
        Some(Mark { number: decimal(number)?, at: decimal(time)? })
    }
}

/// A number of decimal digits.
fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// The number that stands right behind `key` in the first `within` bytes.
pub(super) fn number_behind(bytes: &[u8], key: &[u8], within: usize) -> Option<u64> {
    let head = &bytes[..bytes.len().min(within)];
    let at = head.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 { None } else { decimal(&bytes[at..at + digits]) }
}

/// JSON of `size` bytes with this mark, at least what the mark needs. With several `lanes` it names the one that its
/// number falls into, for filters.
pub(super) fn payload(mark: Mark, size: usize, lanes: u64) -> String {
    let lane = if lanes > 1 { format!(",\"lane\":{}", mark.number % lanes) } else { String::new() };
    let mut text = format!("{{\"mark\":\"{mark}\"{lane},\"pad\":\"");
    let pad = size.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', pad));
    text.push_str("\"}");
    text
}

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Microseconds since it began.
    pub(super) fn now(self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }

    /// The moment of so many microseconds.
    pub(super) fn instant(self, at: u64) -> Instant {
        self.0 + Duration::from_micros(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_they_stand() {
        let mark = Mark { number: 42, at: 1_234_567 };
        let text = payload(mark, 256, 1);
        assert_eq!(text.len(), 256);
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["mark"].is_string());
        let mut hint = 0;
        for before in ["", "load-", "load-0000000001-x ", "channel load-7 "] {
            let bytes = format!("{before}{text}");
            assert_eq!(Mark::find(bytes.as_bytes(), &mut hint), Some(mark), "{bytes}");
            assert_eq!(Mark::find(bytes.as_bytes(), &mut hint), Some(mark), "{bytes}");
        }
        assert_eq!(Mark::find(b"load-0000000042-00000123456", &mut hint), None);
        assert_eq!(payload(mark, 0, 1), format!("{{\"mark\":\"{mark}\",\"pad\":\"\"}}"));
    }

    #[test]
    fn numbers_are_read_behind_their_key() {
        let text = br#"{"params":{"sub":1,"seq":12346,"event":{"seq":9}}}"#;
        assert_eq!(number_behind(text, b"\"seq\":", 120), Some(12346));
        assert_eq!(number_behind(text, b"\"seq\":", 10), None);
        assert_eq!(number_behind(br#""seq":x"#, b"\"seq\":", 120), None);
    }
}
