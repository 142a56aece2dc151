//! Input by chance for everything that reads what strangers send.
//!
//! A parser has its targets beside it, in a module `fuzz`: functions that take any bytes and assert what holds for all
//! of them. Inputs are valid ones and those that once were trouble (the corpus), texts that a grammar makes, both of
//! them damaged ([`mutate`]), and mere noise. The seed decides them all:
//!
//! * `FUZZ_SEED`: the same inputs again; a seed by chance without it.
//! * `FUZZ_SECONDS`: so long for each target; without it a number of inputs that takes some seconds.
//!
//! What fails is made as short as it can be and printed so that it can be pasted into the corpus of its target.
//!
//! The inputs come from proptest's strategies. What bolero has beyond them is guidance by coverage, and that takes a
//! nightly compiler and an instrumented build of everything; without it, it makes bytes that hardly ever get past the
//! first character of these languages, where strategies and damaged examples reach every corner.

pub(crate) mod corpus;
pub(crate) mod json;
mod mutate;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// No input may take longer, the best of three times: most take microseconds, but machines stand still at times.
const PATIENCE: Duration = Duration::from_secs(5);
/// Inputs that are tried to make one that fails shorter.
const SHORTENINGS: usize = 4000;

/// A parser and what it is fed.
pub(crate) struct Fuzz {
    name: &'static str,
    inputs: u64,
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    grammar: BoxedStrategy<Vec<u8>>,
}

impl Fuzz {
    /// `inputs`: so many unless `FUZZ_SECONDS` says how long.
    pub(crate) fn new(name: &'static str, inputs: u64) -> Fuzz {
        let words = mutate::WORDS.iter().map(|word| word.to_vec()).collect();
        Fuzz { name, inputs, corpus: Vec::new(), words, grammar: vec(any::<u8>(), 0..64).boxed() }
    }

    /// Adds good inputs, and those that were trouble: they are tried first, and damaged.
    pub(crate) fn corpus<T: AsRef<[u8]>>(mut self, inputs: impl IntoIterator<Item = T>) -> Fuzz {
        self.corpus.extend(inputs.into_iter().map(|input| input.as_ref().to_vec()));
        self
    }

    /// Adds words of the language, to damage inputs with.
    pub(crate) fn words<T: AsRef<[u8]>>(mut self, words: impl IntoIterator<Item = T>) -> Fuzz {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// What makes inputs from nothing.
    pub(crate) fn grammar<T: Into<Vec<u8>> + std::fmt::Debug + 'static>(
        mut self,
        grammar: impl Strategy<Value = T> + 'static,
    ) -> Fuzz {
        self.grammar = grammar.prop_map(Into::into).boxed();
        self
    }

    /// Feeds `target`, which panics if something is wrong, and says whether the input was a good one.
    pub(crate) fn run(self, mut target: impl FnMut(&[u8]) -> bool) {
        let seed = number("FUZZ_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
        println!("fuzzing {}: FUZZ_SEED={seed}", self.name);
        let (began, time) = (Instant::now(), number("FUZZ_SECONDS").map(Duration::from_secs));
        let mut run = Run { target: &mut target, count: 0, good: 0, slowest: (Duration::ZERO, Vec::new()) };
        for input in &self.corpus {
            run.try_one(input, self.name, seed);
        }
        let mut rng = [0; 32];
        rng[..8].copy_from_slice(&seed.to_le_bytes());
        for (byte, of_name) in rng[8..].iter_mut().zip(self.name.bytes()) {
            *byte = of_name;
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &rng);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let inputs = mutate::inputs(self.corpus, self.words, self.grammar);
        while time.map_or(run.count < self.inputs, |time| began.elapsed() < time) {
            let input = inputs.new_tree(&mut runner).expect("strategies without filters").current();
            run.try_one(&input, self.name, seed);
        }
        let seconds = began.elapsed().as_secs_f64();
        let (rate, good) = (run.count as f64 / seconds, run.good * 100 / run.count.max(1));
        let (slowest, input) = run.slowest;
        println!(
            "fuzzed {}: {} inputs in {seconds:.1} s ({rate:.0}/s), {good} % good, the slowest in {slowest:.0?}: {}",
            self.name,
            run.count,
            shown(&input, 100)
        );
    }
}

struct Run<'t> {
    target: &'t mut dyn FnMut(&[u8]) -> bool,
    count: u64,
    good: u64,
    slowest: (Duration, Vec<u8>),
}

impl Run<'_> {
    fn try_one(&mut self, input: &[u8], name: &str, seed: u64) {
        self.count += 1;
        let mut took = Duration::MAX;
        for again in 0..3 {
            let began = Instant::now();
            match caught(|| (self.target)(input)) {
                Ok(good) => self.good += u64::from(good && again == 0),
                Err(fault) => {
                    let (short, fault) = self.shorten(input, fault);
                    let (count, short) = (self.count, shown(&short, usize::MAX));
                    panic!("{name}, FUZZ_SEED={seed}, input {count}: {fault}\n  {short}");
                }
            }
            took = took.min(began.elapsed());
            if took < PATIENCE {
                break;
            }
        }
        assert!(took < PATIENCE, "{name}, FUZZ_SEED={seed}: {took:?} for {}", shown(input, usize::MAX));
        if took > self.slowest.0 {
            self.slowest = (took, input.to_vec());
        }
    }

    /// Leaves out pieces, large ones first, as long as it fails.
    fn shorten(&mut self, input: &[u8], fault: String) -> (Vec<u8>, String) {
        let (mut short, mut fault, mut tries) = (input.to_vec(), fault, 0);
        let mut piece = short.len().div_ceil(2);
        while piece > 0 {
            let (mut at, mut shorter) = (0, false);
            while at < short.len() && tries < SHORTENINGS {
                tries += 1;
                let mut less = short.clone();
                less.drain(at..(at + piece).min(short.len()));
                match caught(|| (self.target)(&less)) {
                    Err(same) => (short, fault, shorter) = (less, same, true),
                    Ok(_) => at += piece,
                }
            }
            if !shorter || piece > 1 {
                piece /= 2;
            }
        }
        (short, fault)
    }
}

thread_local! {
    /// What a panic said that is looked for; `None`: panics are shown.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What it returns, or what it said in its panic, which nobody else is shown.
fn caught(work: impl FnOnce() -> bool) -> Result<bool, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let looked_for = SAID.with_borrow_mut(|said| said.as_mut().map(|said| *said = panic.to_string()));
            if looked_for.is_none() {
                others(panic);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let said = SAID.take().unwrap_or_default();
    result.map_err(|_| said)
}

/// As Rust writes a byte string.
fn shown(input: &[u8], most: usize) -> String {
    let more = if input.len() > most { "…" } else { "" };
    format!("b\"{}\"{more}", input[..input.len().min(most)].escape_ascii())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Places to cut an input at, which the input itself decides: never two runs differ.
pub(crate) fn cuts(input: &[u8]) -> impl Iterator<Item = usize> {
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    })
}

/// Headers of a request, a line each.
pub(crate) fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

#[test]
fn what_fails_is_found_and_made_short() {
    let fuzz = Fuzz::new("a parser that is wrong", 5000).corpus(["a long input with a fault in it"]);
    let found = panic::catch_unwind(AssertUnwindSafe(|| {
        fuzz.run(|input| {
            assert!(!input.windows(5).any(|window| window == b"fault"), "found");
            true
        });
    }));
    let said = found.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("found") && said.ends_with("b\"fault\""), "{said}");
}
