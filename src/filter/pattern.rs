//! Regular expressions: the linear-time `regex` crate, with PCRE's ASCII meaning of `\d \w \s \b`, which is what
//! KernelCI's queries have always been matched with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, AssertionKind, Ast, ClassPerlKind, ClassSet, ClassSetItem, Flag, Span};

use super::limits;
use crate::sync::lock;

/// How deep a pattern's groups may nest: what walks patterns recursively relies on it.
const NEST: u32 = 32;
/// Compiled size: enough for any class of Unicode, too little for large counted repetitions of one.
const SIZE: usize = 1 << 17;
/// Most patterns are no larger than this, compiled.
const SMALL: usize = 1 << 14;
/// Parts of classes that make the class one of very many characters, in a pattern with `(?i)`: for each of them the
/// parser looks at every character there is, which takes it 10 ms.
const FOLDED: usize = 2;
/// A range of more characters than this is such a part.
const WIDE: u32 = 8192;

/// A regular expression of the linear-time `regex` crate with ASCII classes, so that PCRE reads it the same way.
/// Unanchored, case-sensitive. Patterns of the same text share what is compiled.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    regex: Regex,
    weight: usize,
}

/// The patterns in use, by their text.
static KNOWN: Mutex<BTreeMap<String, Weak<Compiled>>> = Mutex::new(BTreeMap::new());
/// Texts of patterns that are used no more are forgotten when there are so many, and twice as many as in use.
const KEPT: usize = 1024;

impl Pattern {
    /// Compiles what a client wrote, or takes it from those in use; the error says what is wrong with it.
    pub fn new(source: &str) -> Result<Pattern, String> {
        Pattern::of_ascii(&read(source)?)
    }

    /// What a client wrote, if it is in use; the error if it cannot be.
    pub fn in_use(source: &str) -> Result<Option<Pattern>, String> {
        Ok(Pattern::known(&read(source)?))
    }

    fn known(text: &str) -> Option<Pattern> {
        lock(&KNOWN).get(text).and_then(Weak::upgrade).map(Pattern)
    }

    /// Compiles a pattern whose classes are ASCII already ([`Pattern::text`]), or takes it from those in use.
    pub(crate) fn of_ascii(text: &str) -> Result<Pattern, String> {
        if let Some(known) = Pattern::known(text) {
            return Ok(known);
        }
        // Not under the lock: it may take a millisecond.
        let (regex, weight) = match build(text, SMALL) {
            Ok(regex) => (regex, 2 * SMALL),
            Err(_) => (build(text, SIZE)?, 2 * SIZE),
        };
        let compiled = Arc::new(Compiled { regex, weight });
        let mut known = lock(&KNOWN);
        if known.len() >= KEPT && known.len().is_power_of_two() {
            known.retain(|_, pattern| pattern.strong_count() > 0);
        }
        known.insert(text.to_owned(), Arc::downgrade(&compiled));
        Ok(Pattern(compiled))
    }

    /// Whether it is found in this text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.regex.is_match(text)
    }

    /// The pattern with ASCII classes.
    pub fn text(&self) -> &str {
        self.0.regex.as_str()
    }

    /// About how many bytes it holds once it has been used: the program, and the states that are kept of it.
    pub fn weight(&self) -> usize {
        self.0.weight
    }
}

/// The pattern with ASCII classes of what a client wrote.
fn read(source: &str) -> Result<String, String> {
    if source.chars().count() > limits::PATTERN {
        return Err(format!("a regular expression has at most {} characters", limits::PATTERN));
    }
    let tree = ast::parse::ParserBuilder::new().nest_limit(NEST).build().parse(source);
    let tree = tree.map_err(|error| format!("not a regular expression: {}", error.kind()))?;
    let edits = ast::visit(&tree, Edits::default()).unwrap_or_default();
    if edits.ignores_case && edits.wide > FOLDED {
        return Err(format!(
            "with (?i) a regular expression has at most {FOLDED} negated or wide parts inside of classes"
        ));
    }
    ascii(source, edits)
}

fn build(pattern: &str, size: usize) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).nest_limit(NEST).size_limit(size).dfa_size_limit(size).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        other => {
            // The last line of the message is the reason; the lines before draw the pattern.
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("not a regular expression: {reason}")
        }
    })
}

/// Parses a pattern whose classes are ASCII already.
pub(crate) fn parse(pattern: &str) -> Option<regex_syntax::hir::Hir> {
    regex_syntax::ParserBuilder::new().nest_limit(NEST).build().parse(pattern).ok()
}

/// Writes the ASCII meaning of Perl classes and word boundaries into the pattern.
fn ascii(source: &str, Edits { mut edits, .. }: Edits) -> Result<String, String> {
    edits.sort_by_key(|(span, _)| span.start.offset);
    let (mut text, mut done) = (String::with_capacity(source.len()), 0);
    for (span, with) in edits {
        let kept = source.get(done..span.start.offset);
        let old = source.get(span.start.offset..span.end.offset);
        let (Some(kept), Some(old)) = (kept, old) else {
            return Err("not a regular expression".into());
        };
        text.push_str(kept);
        match with {
            Some(class) => text.push_str(class),
            None => text.extend(["(?-u:", old, ")"]),
        }
        done = span.end.offset;
    }
    text.push_str(source.get(done..).unwrap_or_default());
    Ok(text)
}

/// What a pattern is looked through for.
#[derive(Default)]
struct Edits {
    /// What to write instead of a span: a class, or `None` to switch Unicode off around it.
    edits: Vec<(Span, Option<&'static str>)>,
    /// Whether there is a `(?i)` in it.
    ignores_case: bool,
    /// Parts of classes as [`FOLDED`] says.
    wide: usize,
}

impl Edits {
    fn class(&mut self, class: &ast::ClassPerl) {
        let with = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Space, false) => r"[\t\n\x0B\x0C\r\x20]",
            (ClassPerlKind::Space, true) => r"[^\t\n\x0B\x0C\r\x20]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
        };
        self.edits.push((class.span, Some(with)));
    }
}

impl ast::Visitor for Edits {
    type Output = Edits;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Self::Output, Self::Err> {
        Ok(self)
    }
    fn visit_pre(&mut self, part: &Ast) -> Result<(), Self::Err> {
        match part {
            Ast::Flags(set) => self.ignores_case |= set.flags.flag_state(Flag::CaseInsensitive) == Some(true),
            Ast::Group(group) => {
                let flags = group.flags();
                self.ignores_case |= flags.and_then(|f| f.flag_state(Flag::CaseInsensitive)) == Some(true);
            }
            Ast::ClassBracketed(class) => self.wide += wide(&class.kind),
            Ast::ClassPerl(class) => self.class(class),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText => {}
                _ => self.edits.push((assertion.span, None)),
            },
            _ => {}
        }
        Ok(())
    }
    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        if let ClassSetItem::Perl(class) = item {
            self.class(class);
        }
        Ok(())
    }
}

/// How many parts of a class make it one of very many characters.
// Recursion: at most NEST deep.
fn wide(set: &ClassSet) -> usize {
    match set {
        ClassSet::BinaryOp(both) => wide(&both.lhs) + wide(&both.rhs),
        ClassSet::Item(item) => wide_item(item),
    }
}

fn wide_item(item: &ClassSetItem) -> usize {
    match item {
        ClassSetItem::Range(range) => {
            usize::from(u32::from(range.end.c).saturating_sub(u32::from(range.start.c)) > WIDE)
        }
        ClassSetItem::Perl(class) => usize::from(class.negated),
        ClassSetItem::Ascii(class) => usize::from(class.negated),
        ClassSetItem::Bracketed(class) => {
            let inner = wide(&class.kind);
            inner + usize::from(class.negated || inner > 0)
        }
        ClassSetItem::Union(union) => union.items.iter().map(wide_item).sum(),
        // Those of Unicode are a few hundred ranges, whatever they hold.
        ClassSetItem::Empty(_) | ClassSetItem::Literal(_) | ClassSetItem::Unicode(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(text)
    }

    #[test]
    fn classes_and_boundaries_are_ascii() {
        assert!(found(r"^\d+$", "123") && !found(r"\d", "٣"));
        assert!(found(r"^[\w.]+$", "a_1.b") && !found(r"\w", "é"));
        assert!(!found(r"\W", "a_1") && !found(r"[^\w]", "_"));
        assert!(found(r"^[^\w]$", "é") && found(r"^\W$", "é"));
        assert!(found(r"\s", "a b") && !found(r"\s", "a\u{a0}b"));
        assert!(found(r"\bfoo\b", "éfooé") && !found(r"\bfoo\b", "xfoo"));
        assert!(found(r"(?x) a \s b # comment", "a b"));
    }

    #[test]
    fn unanchored_and_case_sensitive() {
        assert!(found("seline", "baseline") && !found("BASE", "baseline") && found("(?i)BASE", "baseline"));
    }

    /// A text of 256 characters took the parser half a second, each time.
    #[test]
    fn what_ignores_case_and_takes_the_parser_long_is_refused() {
        for slow in ["[\0-\u{10ffff}]", "[a[^b]]", "[^[^a]b]", r"[\W_]", "[a&&[^b]]", "[[:^alpha:]]"] {
            for pattern in [format!("(?i){}", slow.repeat(3)), format!("a(?s-m:(?i:{}))", slow.repeat(3))] {
                assert!(Pattern::new(&pattern).unwrap_err().contains("(?i)"), "{pattern}");
            }
            assert!(Pattern::new(&slow.repeat(3)).is_ok(), "{slow}");
            assert!(Pattern::new(&format!("(?-i){}", slow.repeat(3))).is_ok(), "{slow}");
        }
        for good in ["(?i)[^a][^b]+[^c][^/]*x", r"(?i)[\W_]foo[\W_]", "(?i)[a-zé-ž0-9_-]{1,9}[a-f][x-z]"] {
            assert!(Pattern::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn limits_and_mistakes_are_told() {
        assert!(Pattern::new(&"a".repeat(257)).unwrap_err().contains("256"));
        assert!(Pattern::new("(").unwrap_err().contains("unclosed group"));
        assert!(Pattern::new("(?!a)").unwrap_err().contains("look-around"));
        assert!(Pattern::new(r"\pL{1000}").unwrap_err().contains("too large"));
        assert!(Pattern::new(&"(".repeat(100)).is_err());
        assert!(Pattern::new(&format!("{}a{}", "(".repeat(100), ")".repeat(100))).is_err());
    }

    #[test]
    fn patterns_of_the_same_text_are_compiled_once() {
        let (a, b) = (Pattern::new(r"shared \d").unwrap(), Pattern::new("shared [0-9]").unwrap());
        assert!(Arc::ptr_eq(&a.0, &b.0));
        let large = Pattern::new(r"\pL{3}111").unwrap();
        assert_eq!((a.weight(), large.weight()), (2 * SMALL, 2 * SIZE));
        for number in 0..3 * KEPT {
            Pattern::new(&format!("of {number} for a moment")).unwrap();
        }
        assert!(lock(&KNOWN).len() <= 2 * KEPT);
        assert!(Arc::ptr_eq(&a.0, &Pattern::new(r"shared \d").unwrap().0), "those in use stay");
    }
}
