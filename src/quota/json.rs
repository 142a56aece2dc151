//! What JSON text may cost once it is parsed, found without parsing it and without recursion. A few bytes of text become
//! a value of some fifty, and each level of nesting a call.

/// Deepest nesting.
pub const DEPTH: usize = 64;
/// Values of a text no longer than a message.
const ELEMENTS: usize = 100_000;
/// What is longer holds many things, as a tree of nodes does: it may have so many values, or one for so many bytes.
const OF_MANY: usize = 500_000;
const BYTES_EACH: usize = 12;
/// Bytes of a message.
const MESSAGE: usize = 1 << 20;
/// Deepest nesting, and values, of what MongoDB may hold in one document, which has to come in again as it went out.
const DEPTH_STORED: usize = 110;
const ELEMENTS_STORED: usize = 2_000_000;

/// What JSON text may be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As a message, or many of them.
    Message,
    /// As whatever is stored, or many of it.
    Large,
}

impl Shape {
    /// Whether this text may be parsed. What is no JSON may as well.
    pub fn check(self, text: &str) -> Result<(), Excess> {
        match self {
            Shape::Message => check(text),
            Shape::Large => within(text, DEPTH_STORED, most(text.len()).max(ELEMENTS_STORED)),
        }
    }
}

/// Bytes of a text, or more if it has more values than a message may have.
pub fn weight(text: &[u8]) -> usize {
    let values = || text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if text.len() > ELEMENTS && text.len() <= MESSAGE && values() > ELEMENTS {
        MESSAGE + 1
    } else {
        text.len()
    }
}

/// Why JSON text is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It nests deeper than this.
    Depth(usize),
    /// It has more values than this.
    Elements(usize),
    /// It has a whole number of more than 64 bits, which a parser would round, at this path.
    Whole(String),
}

impl std::fmt::Display for Excess {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Excess::Depth(most) => write!(out, "nested deeper than {most} levels"),
            Excess::Elements(most) => write!(out, "it has more than {most} values"),
            Excess::Whole(path) => {
                write!(
                    out,
                    "{path}: whole numbers have at most 64 bits; larger ones are written with a point or an exponent"
                )
            }
        }
    }
}

/// Whether this text may be parsed. What is no JSON may as well.
pub fn check(text: &str) -> Result<(), Excess> {
    within(text, DEPTH, most(text.len()))
}

/// Values of a text of so many bytes.
fn most(bytes: usize) -> usize {
    if bytes <= MESSAGE { ELEMENTS } else { OF_MANY.max(bytes / BYTES_EACH) }
}

/// The same for other limits.
pub(crate) fn within(text: &str, deepest: usize, most: usize) -> Result<(), Excess> {
    let (mut depth, mut elements, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    // Digits of the number that is being read, and whether it is none that is whole.
    let (mut digits, mut broken) = (0usize, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                continue;
            }
            b'.' | b'e' | b'E' | b'+' | b'-' => {
                broken |= digits > 0;
                continue;
            }
            _ => {}
        }
        if digits > EXACT && !broken && is_rounded(text, at, digits) {
            return Err(Excess::Whole(path(text, at)));
        }
        (digits, broken) = (0, false);
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                (depth, elements) = (depth + 1, elements + 1);
                if depth > deepest {
                    return Err(Excess::Depth(deepest));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => elements += 1,
            _ => {}
        }
        if elements > most {
            return Err(Excess::Elements(most));
        }
    }
    match digits > EXACT && !broken && is_rounded(text, text.len(), digits) {
        true => Err(Excess::Whole(path(text, text.len()))),
        false => Ok(()),
    }
}

/// Digits that always fit into 64 bits.
const EXACT: usize = 18;

/// Whether the whole number of so many digits that ends here is beyond what a parser keeps.
fn is_rounded(text: &str, end: usize, digits: usize) -> bool {
    let number = text.get(end - digits..end).unwrap_or_default();
    match text.get(..end - digits).is_some_and(|before| before.ends_with('-')) {
        // The smallest one has no positive counterpart.
        true => number.parse::<u64>().map_or(true, |number| number > i64::MIN.unsigned_abs()),
        false => number.parse::<u64>().is_err(),
    }
}

/// Bytes of a name that a path repeats.
const SHOWN: usize = 64;

/// Where in a JSON text this byte stands: `data.list.3`.
fn path(text: &str, end: usize) -> String {
    // Of each value that is open: the name of the member, or the number of the element.
    let mut open: Vec<Result<&str, usize>> = Vec::new();
    let (mut last, mut begin, mut escaped) = ("", None, false);
    for (at, byte) in text.bytes().enumerate().take(end) {
        if let Some(from) = begin {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => (last, begin) = (text.get(from..at).unwrap_or_default(), None),
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => begin = Some(at + 1),
            b'{' => open.push(Ok("")),
            b'[' => open.push(Err(0)),
            b'}' | b']' => _ = open.pop(),
            b':' => _ = open.last_mut().map(|step| *step = Ok(last)),
            b',' => _ = open.last_mut().map(|step| *step = step.map_err(|index| index + 1)),
            _ => {}
        }
    }
    let step = |step: &Result<&str, usize>| match step {
        Ok(name) => name.chars().take(SHOWN).collect(),
        Err(index) => index.to_string(),
    };
    let steps: Vec<String> = open.iter().map(step).collect();
    if steps.is_empty() { "a number".to_owned() } else { steps.join(".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(check(&deep(DEPTH)), Ok(()));
        assert_eq!(check(&deep(DEPTH + 1)), Err(Excess::Depth(DEPTH)));
        assert_eq!(check(&format!("{:?}", "[\"[[".repeat(DEPTH))), Ok(()));
        assert_eq!(check(&"[]".repeat(DEPTH + 1)), Ok(()));
    }

    #[test]
    fn what_is_stored_may_be_deeper_and_have_more_values_than_a_message() {
        let deep = "[".repeat(DEPTH_STORED) + &"]".repeat(DEPTH_STORED);
        assert_eq!((check(&deep), Shape::Large.check(&deep)), (Err(Excess::Depth(DEPTH)), Ok(())));
        let many = format!("[{}0]", "0,".repeat(400_000));
        assert_eq!((check(&many), Shape::Large.check(&many)), (Err(Excess::Elements(ELEMENTS)), Ok(())));
        assert!(many.len() < MESSAGE && weight(many.as_bytes()) > MESSAGE, "it waits for its turn");
        assert_eq!(weight(b"[1, 2]"), 6);
    }

    #[test]
    fn whole_numbers_that_would_be_rounded_are_named() {
        let named = |path: &str| Err(Excess::Whole(path.to_owned()));
        for (text, found) in [
            ("18446744073709551615", Ok(())),
            ("18446744073709551616", named("a number")),
            ("[-9223372036854775808, 1]", Ok(())),
            ("[0, -9223372036854775809]", named("1")),
            (
                r#"{"a":"x\",\"", "data":{"l":[{},[],{"n\"": 100000000000000000000 }]}}"#,
                named(r#"data.l.2.n\""#),
            ),
            (r#"{"a":1,"b":[1,2,99999999999999999999]}"#, named("b.2")),
            (
                r#"{"a":"99999999999999999999","b":1e30,"c":99999999999999999999.0,"d":1E+30,"e":0.99999999999999999999}"#,
                Ok(()),
            ),
            (r#"{"a":1e99999999999999999999,"b":-99999999999999999999.5e-3}"#, Ok(())),
            // Zeros in front are no JSON, which a parser says.
            ("00000000000000000000", Ok(())),
        ] {
            assert_eq!(check(text), found, "{text}");
        }
    }

    #[test]
    fn values_are_counted_outside_strings() {
        let list = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
        assert_eq!(check(&list("1", ELEMENTS)), Ok(()));
        assert_eq!(check(&list("1", ELEMENTS + 1)), Err(Excess::Elements(ELEMENTS)));
        assert_eq!(check(&list("[]", ELEMENTS / 2 + 1)), Err(Excess::Elements(ELEMENTS)));
        assert_eq!(
            check(&list("[]", 10_000_000)),
            Err(Excess::Elements(30_000_001 / BYTES_EACH)),
            "as long as it is"
        );
        assert_eq!(check(&list("[]", 400_000)), Err(Excess::Elements(OF_MANY)));
        assert_eq!(check(&list("\"a string of sixteen\"", 1_000_000)), Ok(()));
        assert_eq!(check(&format!("[\"{}\"]", ",[{".repeat(ELEMENTS))), Ok(()));
    }
}
