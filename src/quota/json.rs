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

/// Why JSON text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It nests deeper than [`DEPTH`].
    Depth,
    /// It has more values than this.
    Elements(usize),
}

impl std::fmt::Display for Excess {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Excess::Depth => write!(out, "nested deeper than {DEPTH} levels"),
            Excess::Elements(most) => write!(out, "it has more than {most} values"),
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
    for byte in text.bytes() {
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
            b'"' => in_string = true,
            b'{' | b'[' => {
                (depth, elements) = (depth + 1, elements + 1);
                if depth > deepest {
                    return Err(Excess::Depth);
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(check(&deep(DEPTH)), Ok(()));
        assert_eq!(check(&deep(DEPTH + 1)), Err(Excess::Depth));
        assert_eq!(check(&format!("{:?}", "[\"[[".repeat(DEPTH))), Ok(()));
        assert_eq!(check(&"[]".repeat(DEPTH + 1)), Ok(()));
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
