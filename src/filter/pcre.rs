//! Regular expressions as MongoDB is told of them: a pattern that PCRE reads exactly as the `regex` crate reads ours
//! and that it cannot spend long on, or else a part of it.
//!
//! PCRE backtracks and gives up on what takes too long, so whatever could backtrack much is not sent. Since patterns
//! are not anchored, whoever matches `ABC` also matches any part of that sequence: the longest harmless part narrows
//! the search, and what is found is matched again in memory.

use std::fmt::Write as _;

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// How many ways to match a harmless pattern may try at one place of the text.
const WAYS: u64 = 500;
/// Bytes of a printed pattern, with counted repetitions written out, as PCRE compiles them.
const SIZE: usize = 4000;

/// What MongoDB may be asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pcre {
    /// Finds exactly what the pattern finds.
    Exact(String),
    /// Finds at least that.
    Superset(String),
    /// Nothing useful.
    Unknown,
}

/// Translates a pattern whose classes are ASCII already (`Pattern::regex.as_str()`).
pub(crate) fn translate(pattern: &str) -> Pcre {
    let Some(hir) = super::pattern::parse(pattern) else {
        return Pcre::Unknown;
    };
    let mut parts = flatten(&hir);
    // What may be empty at either end does not decide whether there is a match.
    while parts.first().is_some_and(|part| is_optional(part)) {
        parts.remove(0);
    }
    while parts.last().is_some_and(|part| is_optional(part)) {
        parts.pop();
    }
    if let Some(text) = print_all(&parts) {
        return Pcre::Exact(text);
    }
    let runs = parts.split(|part| print_all(&[*part]).is_none());
    let best = runs.flat_map(|run| [run, run.split_last().map_or(run, |(_, head)| head)]);
    let best = best.filter(|run| !run.is_empty()).filter_map(|run| Some((weight(run), print_all(run)?)));
    match best.filter(|(weight, _)| *weight > 0).max_by_key(|(weight, _)| *weight) {
        Some((_, text)) => Pcre::Superset(text),
        None => Pcre::Unknown,
    }
}

/// The parts of a sequence, seen through groups.
fn flatten(hir: &Hir) -> Vec<&Hir> {
    match hir.kind() {
        HirKind::Concat(parts) => parts.iter().flat_map(flatten).collect(),
        HirKind::Capture(group) => flatten(&group.sub),
        _ => vec![hir],
    }
}

fn is_optional(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Repetition(repetition) => repetition.min == 0,
        HirKind::Empty => true,
        _ => false,
    }
}

/// How much a run narrows the search: characters that must be there.
fn weight(run: &[&Hir]) -> usize {
    run.iter().filter_map(|part| part.properties().minimum_len()).sum()
}

/// Prints a sequence if it is harmless and printable.
fn print_all(parts: &[&Hir]) -> Option<String> {
    // One unbounded repetition of a single character is linear when the match can begin at one place only.
    let anchored = matches!(parts.first().map(|part| part.kind()), Some(HirKind::Look(Look::Start)));
    let mut endless = usize::from(anchored);
    let (mut ways, mut size) = (1u64, 0usize);
    for part in parts {
        let free = match part.kind() {
            HirKind::Repetition(Repetition { max: None, sub, min, .. }) if *min <= 1 && is_single(sub) => {
                std::mem::take(&mut endless) == 1
            }
            _ => false,
        };
        ways = ways.saturating_mul(if free { 1 } else { self::ways(part)? });
        size = size.saturating_add(self::size(part)?);
    }
    if ways > WAYS || size > SIZE {
        return None;
    }
    let mut text = String::new();
    for part in parts {
        print(part, &mut text)?;
    }
    (text.len() <= SIZE).then_some(text)
}

fn is_single(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(_) => true,
        HirKind::Literal(literal) => {
            std::str::from_utf8(&literal.0).is_ok_and(|text| text.chars().count() == 1)
        }
        _ => false,
    }
}

/// Upper bound of the ways in which a matcher that backtracks may try this at one place; `None`: no bound.
fn ways(hir: &Hir) -> Option<u64> {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => Some(1),
        HirKind::Capture(group) => ways(&group.sub),
        HirKind::Concat(parts) => {
            parts.iter().try_fold(1u64, |all, part| Some(all.saturating_mul(ways(part)?)))
        }
        HirKind::Alternation(parts) => {
            parts.iter().try_fold(0u64, |all, part| Some(all.saturating_add(ways(part)?)))
        }
        HirKind::Repetition(repetition) => {
            let (max, each) = (repetition.max?, ways(&repetition.sub)?);
            let counts = u64::from(max.checked_sub(repetition.min)?).saturating_add(1);
            Some(each.saturating_pow(max).saturating_mul(counts))
        }
    }
}

/// Bytes that this takes, with repetitions written out.
fn size(hir: &Hir) -> Option<usize> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(8),
        HirKind::Literal(literal) => Some(literal.0.len()),
        HirKind::Class(_) => {
            let mut text = String::new();
            print(hir, &mut text)?;
            Some(text.len())
        }
        HirKind::Capture(group) => size(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().try_fold(4usize, |all, part| Some(all.saturating_add(size(part)?)))
        }
        HirKind::Repetition(Repetition { min, max, sub, .. }) => {
            let times = usize::try_from(max.unwrap_or(*min).max(1)).ok()?;
            Some(size(sub)?.saturating_mul(times).saturating_add(8))
        }
    }
}

/// Prints what PCRE reads the same way, in its UTF mode and without its Unicode classes; `None` if there is nothing.
fn print(hir: &Hir, out: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty => out.push_str("(?:)"),
        HirKind::Literal(literal) => {
            std::str::from_utf8(&literal.0).ok()?.chars().try_for_each(|c| character(c, out))?;
        }
        HirKind::Class(class) => print_class(class, out)?,
        HirKind::Look(look) => out.push_str(match look {
            Look::Start => r"\A",
            Look::End => r"\z",
            Look::StartLF => r"(?:\A|(?<=\x{a}))",
            Look::EndLF => r"(?:\z|(?=\x{a}))",
            Look::WordAscii => r"\b",
            Look::WordAsciiNegate => r"\B",
            _ => return None,
        }),
        HirKind::Repetition(Repetition { min, max, sub, .. }) => {
            // Whether it is greedy decides where a match ends, not whether there is one.
            out.push_str("(?:");
            print(sub, out)?;
            match max {
                Some(max) => write!(out, "){{{min},{max}}}").ok()?,
                None => write!(out, "){{{min},}}").ok()?,
            }
        }
        HirKind::Capture(group) => {
            out.push_str("(?:");
            print(&group.sub, out)?;
            out.push(')');
        }
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| print(part, out))?,
        HirKind::Alternation(parts) => {
            out.push_str("(?:");
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    out.push('|');
                }
                print(part, out)?;
            }
            out.push(')');
        }
    }
    Some(())
}

fn print_class(class: &Class, out: &mut String) -> Option<()> {
    let ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
        Class::Bytes(class) if class.is_ascii() => {
            class.iter().map(|range| (char::from(range.start()), char::from(range.end()))).collect()
        }
        Class::Bytes(_) => return None,
    };
    if ranges.is_empty() {
        out.push_str("(?!)");
        return Some(());
    }
    out.push('[');
    for (first, last) in ranges {
        character(first, out)?;
        if last != first {
            out.push('-');
            character(last, out)?;
        }
        if out.len() > SIZE {
            return None;
        }
    }
    out.push(']');
    Some(())
}

/// One character: by its number unless it is a letter or digit, so that nothing is ever syntax.
fn character(c: char, out: &mut String) -> Option<()> {
    if c.is_ascii_alphanumeric() {
        out.push(c);
        return Some(());
    }
    write!(out, "\\x{{{:x}}}", u32::from(c)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::*;

    fn of(pattern: &str) -> Pcre {
        translate(Pattern::new(pattern).unwrap().text())
    }
    fn exact(text: &str) -> Pcre {
        Pcre::Exact(text.into())
    }
    fn superset(text: &str) -> Pcre {
        Pcre::Superset(text.into())
    }

    #[test]
    fn ordinary_patterns_are_sent_whole() {
        assert_eq!(of("^baseline"), exact(r"\Abaseline"));
        assert_eq!(of("a.b$"), exact(r"a[\x{0}-\x{9}\x{b}-\x{10ffff}]b\z"));
        assert_eq!(of(r"\bv\d\."), exact(r"\bv[0-9]\x{2e}"));
        assert_eq!(of("(foo|bar)-x"), exact(r"(?:foo|bar)\x{2d}x"));
        assert_eq!(of("(?:ab){1,3}c"), exact("(?:ab){1,3}c"));
        assert_eq!(of(""), exact(""));
        assert_eq!(of("^a.*b$"), exact(r"\Aa(?:[\x{0}-\x{9}\x{b}-\x{10ffff}]){0,}b\z"));
        assert_eq!(of(".*foo.*"), exact("foo"));
    }

    #[test]
    fn what_could_backtrack_is_sent_in_part() {
        assert_eq!(of("foo.*barbaz"), superset("barbaz"));
        assert_eq!(of("(a+)+b"), superset("b"));
        assert_eq!(of("^(a|a)*$x"), superset(r"\zx"));
        assert_eq!(of("(a|b|ab){20}"), Pcre::Unknown);
        assert_eq!(of("^a.*b.*cd"), superset("cd"));
        assert_eq!(of("x(a|b?){9}"), superset("x"));
        assert_eq!(of("a+"), Pcre::Unknown);
    }
}
