//! E-mail addresses: whether a text looks like one, in the words that KernelCI's clients know (contract 6.4).

use crate::error::{Error, Result};

const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;

/// The address with its domain in lower case; 422 if it is none.
pub fn check(field: &str, text: &str) -> Result<String> {
    // In lower case some letters are others, which may be none of a domain.
    let address = lower_domain(text.trim());
    match problem(&address) {
        None => Ok(address),
        Some(problem) => Err(Error::invalid(field, format!("value is not a valid email address: {problem}"))),
    }
}

fn lower_domain(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => address.to_owned(),
    }
}

fn problem(address: &str) -> Option<&'static str> {
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Some("An email address must have an @-sign.");
    };
    let is_atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    if local.is_empty() {
        return Some("There must be something before the @-sign.");
    }
    if !local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom)) {
        return Some("The email address contains invalid characters or periods before the @-sign.");
    }
    if domain.is_empty() {
        return Some("There must be something after the @-sign.");
    }
    let is_label = |label: &str| {
        let ends = [label.chars().next(), label.chars().next_back()];
        label.len() <= 63
            && ends.iter().all(|end| end.is_some_and(char::is_alphanumeric))
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    if !domain.split('.').all(is_label) {
        return Some("The part after the @-sign contains invalid characters or periods.");
    }
    if !domain.contains('.') {
        return Some("The part after the @-sign is not valid. It should have a period.");
    }
    if local.len() > LONGEST_LOCAL || address.len() > LONGEST {
        return Some("The email address is too long.");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (good, kept) in [
            ("bob@example.org", "bob@example.org"),
            ("Bob.O'Neil+ci@Example.ORG", "Bob.O'Neil+ci@example.org"),
            (" a@x.y ", "a@x.y"),
            ("staging.kernelci.org@kernelci.org", "staging.kernelci.org@kernelci.org"),
        ] {
            assert_eq!(check("email", good).unwrap(), kept);
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "",
            "bob",
            "@x.y",
            "bob@",
            "a@b",
            "a b@x.y",
            "a..b@x.y",
            ".a@x.y",
            "a@x..y",
            "a@-x.y",
            "a@x.y\n.z",
            "a@\u{130}.x",
            &long,
        ] {
            let error = check("email", bad).unwrap_err();
            assert_eq!(error.status(), 422, "{bad:?}");
            let words = "email: value is not a valid email address: ";
            assert!(error.detail().as_str().unwrap().starts_with(words), "{error}");
        }
    }
}
