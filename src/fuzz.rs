//! What the fuzz tests share: how long they run and what they are fed. Each stands beside what it tests.

use std::{env, fmt::Debug, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    string::string_regex,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use serde::Serialize;
use tokio::time::Instant;

/// Values in an ordinary run, the same each time; and in one round of a long one.
const CASES: u32 = 256;
/// Values a second after which a simple test makes room for others.
const PLENTY: u64 = 1000;
/// How long one takes to be shrunk, in milliseconds.
const SHRINKING: u32 = 10_000;

/// Tries `property`, which panics where it does not hold, on many values: a few of them, or as many as `FUZZ_SECONDS` allow. One that fails is
/// shrunk and shown, and its seed kept in `proptest-regressions/`, where every later run begins.
pub(crate) fn fuzz<T: Debug>(source: &'static str, values: impl Strategy<Value = T>, property: impl Fn(T)) {
    let seconds: Option<u64> = env::var("FUZZ_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    let config = Config {
        cases: CASES,
        max_shrink_time: SHRINKING,
        rng_algorithm: RngAlgorithm::XorShift,
        source_file: Some(source),
        ..Config::default()
    };
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    for tried in (u64::from(CASES)..).step_by(CASES as usize) {
        let mut runner = match seconds {
            Some(_) => TestRunner::new(config.clone()),
            None => TestRunner::new_with_rng(config.clone(), TestRng::deterministic_rng(config.rng_algorithm)),
        };
        let outcome = runner.run(&values, |value| {
            property(value);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, value)) => panic!("{why}\nthe least that fails: {value:?}"),
            Err(error) => panic!("{error}"),
        }
        if Instant::now() >= end || tried >= PLENTY * seconds.unwrap_or(0) {
            return println!("{tried} values");
        }
    }
}

/// What `original`s become in hostile hands: turned, overwritten, cut, doubled, with words of the protocol in the wrong place.
pub(crate) fn mutated(original: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (original, vec(mutation(), 0..6)).prop_map(|(mut bytes, mutations)| {
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    })
}

#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Truncate(Index),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len() + 1);
        let piece = |index: &Index, length: &usize| place(index)..bytes.len().min(place(index) + length);
        match self {
            Self::Flip(index, mask) => {
                let place = place(index);
                bytes.get_mut(place).into_iter().for_each(|byte| *byte ^= mask);
            }
            Self::Insert(index, more) => {
                let place = place(index);
                bytes.splice(place..place, more.iter().copied());
            }
            Self::Remove(index, length) => {
                let piece = piece(index, length);
                bytes.drain(piece);
            }
            Self::Repeat(index, length, times) => {
                let piece = piece(index, length);
                let more = bytes[piece.clone()].repeat(*times);
                bytes.splice(piece.end..piece.end, more);
            }
            Self::Truncate(index) => bytes.truncate(place(index)),
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    let words: &[&str] =
        &["\"", "{", "[", "}", ",", ":", "\\", "\\ud800", "\\u0000", "null", "1e999", "-0", "\u{feff}", "\u{2028}"];
    let word = select(words).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![
        (index(), 1_u8..).prop_map(|(at, mask)| Mutation::Flip(at, mask)),
        (index(), prop_oneof![word, vec(any::<u8>(), 1..5)]).prop_map(|(at, more)| Mutation::Insert(at, more)),
        (index(), 1_usize..20).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (index(), 1_usize..20, 1_usize..100).prop_map(|(at, length, times)| Mutation::Repeat(at, length, times)),
        index().prop_map(Mutation::Truncate),
    ]
}

/// Any text at all; an `any::<String>()` would parse its own rules anew for each.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..20).prop_map(String::from_iter)
}

/// Texts of a regular expression.
pub(crate) fn texts(regex: &str) -> impl Strategy<Value = String> {
    string_regex(regex).unwrap()
}

/// A JSON text, as writers write it: with white space, escapes, odd numbers, some depth, and lone surrogates.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let odd: &[&str] = &[
        "null",
        "true",
        "0",
        "-0.0",
        "1e999",
        "18446744073709551616",
        r#""\ud83d\ude00""#,
        r#""\ud800""#,
        r#""\u0000""#,
        "\"\u{7f}\"",
    ];
    let leaf = prop_oneof![
        select(odd).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        any_text().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let value = leaf.prop_recursive(4, 24, 6, |inner| {
        let pairs = vec((any_text(), inner.clone()), 0..6);
        prop_oneof![vec(inner, 0..6).prop_map(|values| format!("[{}]", values.join(" ,\n"))), pairs.prop_map(object),]
    });
    // Depth alone is cheap to write down, and its limit is 64.
    (value, prop_oneof![40 => Just(0), 4 => 50_usize..80, 1 => 2000_usize..3000])
        .prop_map(|(value, depth)| format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth)))
}

/// A JSON object of these keys and JSON texts.
pub(crate) fn object<K: Serialize>(fields: impl IntoIterator<Item = (K, String)>) -> String {
    let fields = fields.into_iter().map(|(key, value)| format!("{} :{value}", serde_json::to_string(&key).unwrap()));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}
