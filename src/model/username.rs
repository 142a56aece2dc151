//! Names of users: which ones a new user may have, and which of them people take for one another.

use crate::error::{Error, Result};

const LONGEST: usize = 64;

/// 422 unless somebody may be called this from now on: 1 to 64 of letters, digits and `. _ @ + -`. Names stand among words of
/// the server's, in lists and mails. (Names of older databases are what they are.)
pub fn check(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    match (1..=LONGEST).contains(&name.len()) && name.chars().all(good) {
        true => Ok(()),
        false => Err(Error::invalid(
            "username",
            format!("expected 1 to {LONGEST} of letters, digits and . _ @ + -"),
        )),
    }
}

/// The same for names that look alike: in any case, with `0` for `o`, `1` or `i` for `l`, `rn` for `m`, `vv` for `w`.
pub fn outline(name: &str) -> String {
    let name: String = name.to_lowercase().chars().map(alike).collect();
    name.replace("rn", "m").replace("vv", "w")
}

fn alike(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | 'i' | '|' => 'l',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for good in ["a", "staging.kernelci.org", "lab_x@example.org", "A+1-b", &"x".repeat(64)] {
            check(good).unwrap();
        }
        let sentence = "Your account is locked, go to https://evil.example";
        for bad in ["", " ", "a b", "a\n", "a/b", "ü", "a:b", sentence, &"x".repeat(65)] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.status(), 422, "{bad:?}");
            assert!(error.detail().as_str().unwrap().starts_with("username: "), "{error}");
        }
    }

    #[test]
    fn names_that_look_alike_have_one_outline() {
        for (one, other) in [
            ("admin", "Admin"),
            ("admin", "adm1n"),
            ("admin", "adrnin"),
            ("bob", "b0b"),
            ("lab-collabora", "Iab-coIlab0ra"),
            ("www", "vvww"),
            ("Bob Smith", "bob smith"),
        ] {
            assert_eq!(outline(one), outline(other), "{one} {other}");
        }
        for (one, other) in [("bob", "bobo"), ("lab-1", "lab-2"), ("a.b", "a-b"), ("production", "products")]
        {
            assert_ne!(outline(one), outline(other), "{one} {other}");
        }
    }
}
