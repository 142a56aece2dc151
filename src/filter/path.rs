//! What a field may be called: dotted names, made of characters that need no care in SQL, MongoDB or JSON.

use super::limits;

/// Whether MongoDB takes `segment` for an index into an array (canonical decimal: `0`, `12`, but not `01`).
pub(crate) fn is_index(segment: &str) -> bool {
    let digits = segment.as_bytes();
    digits.iter().all(u8::is_ascii_digit)
        && (1..=9).contains(&digits.len())
        && (digits[0] != b'0' || digits.len() == 1)
}

/// The first name of a path and the rest behind its dot.
pub(crate) fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

/// Checks a path that a client wrote and gives its canonical form (`_id` is an older name of `id`).
/// The error says what is expected.
pub(super) fn check(path: &str) -> Result<&str, String> {
    if path == "_id" {
        return Ok("id");
    }
    if path.len() > limits::PATH {
        return Err(format!("a path has at most {} bytes", limits::PATH));
    }
    let (mut segments, mut indexes) = (0, 0);
    for segment in path.split('.') {
        segments += 1;
        if segment.is_empty() {
            return Err("a path has no empty names".into());
        }
        if segment.starts_with('$') {
            return Err("names do not begin with '$'; operators are written as field__op".into());
        }
        if let Some(bad) = segment.chars().find(|c| !is_safe(*c)) {
            return Err(format!(
                "a path has letters, digits and any of _ - : + @ / # , ~ = % ( ) *, not {bad:?}"
            ));
        }
        indexes += usize::from(is_index(segment));
    }
    if segments > limits::SEGMENTS || indexes > limits::INDEXES {
        return Err(format!(
            "a path has at most {} names, {} of them numbers",
            limits::SEGMENTS,
            limits::INDEXES
        ));
    }
    // The stores keep their own fields under such names; no document that is handed out has one.
    if path.starts_with('_') {
        return Err("the names of fields do not begin with '_'".into());
    }
    Ok(path)
}

/// No quotes, backslashes, control characters; nothing that SQL, JSON paths or MongoDB could read as syntax.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-:+@/ #,~=%()*".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_names_pass_and_dangerous_ones_do_not() {
        for good in
            ["name", "data.arch", "path.0", "data.misc.lava-a b", "artifacts.log@1/x", "a__b__c", "_id"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(300);
        let deep = ["a"; 21].join(".");
        let many = ["0"; 9].join(".");
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "$where",
            "a.$gt",
            "a\0b",
            "a\"b",
            "a'b",
            "a\\b",
            "é",
            "a[0]",
            "_x",
            "_outbox.a",
            &long,
            &deep,
            &many,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_canonical_decimals_are_indexes() {
        assert!(["0", "7", "10"].into_iter().all(is_index));
        assert!(["", "00", "01", "-1", "+1", "1e1", "9999999999"].into_iter().all(|s| !is_index(s)));
    }
}
