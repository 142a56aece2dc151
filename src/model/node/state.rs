//! The state machine of nodes (contract 3.1): `running → available → closing → done`, forwards only, steps may be
//! left out.

use serde_json::Value;

use super::{Outcome, State};
use crate::error::{Error, Result};

impl State {
    /// Names in the order of the states.
    pub const NAMES: [&str; 4] = ["running", "available", "closing", "done"];

    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Available => "available",
            State::Closing => "closing",
            State::Done => "done",
        }
    }
    /// From the wire.
    pub fn from_name(name: &str) -> Option<State> {
        [State::Running, State::Available, State::Closing, State::Done]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

impl Outcome {
    /// Names of all results.
    pub const NAMES: [&str; 4] = ["pass", "fail", "skip", "incomplete"];

    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Skip => "skip",
            Outcome::Incomplete => "incomplete",
        }
    }
    /// From the wire.
    pub fn from_name(name: &str) -> Option<Outcome> {
        [Outcome::Pass, Outcome::Fail, Outcome::Skip, Outcome::Incomplete]
            .into_iter()
            .find(|outcome| outcome.as_str() == name)
    }
    /// `null` for none.
    pub(super) fn to_wire(outcome: Option<Outcome>) -> Value {
        outcome.map_or(Value::Null, |outcome| outcome.as_str().into())
    }
}

/// Whether a node may go from one state to another; staying is always allowed.
pub const fn may_move(from: State, to: State) -> bool {
    use State::{Available, Closing, Done, Running};
    match from {
        Running => true,
        Available => matches!(to, Available | Closing | Done),
        Closing => matches!(to, Closing | Done),
        Done => matches!(to, Done),
    }
}

/// 400 if a node may not go from one state to another.
pub fn check_move(from: State, to: State) -> Result<()> {
    match may_move(from, to) {
        true => Ok(()),
        false => Err(Error::bad_request(format!("Transition not allowed with state: {}", to.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_go_forwards_only() {
        let allowed: &[(&str, &[&str])] = &[
            ("running", &["running", "available", "closing", "done"]),
            ("available", &["available", "closing", "done"]),
            ("closing", &["closing", "done"]),
            ("done", &["done"]),
        ];
        for (from, targets) in allowed {
            for to in State::NAMES {
                let (a, b) = (State::from_name(from).unwrap(), State::from_name(to).unwrap());
                assert_eq!(may_move(a, b), targets.contains(&to), "{from} -> {to}");
                assert_eq!(check_move(a, b).is_ok(), may_move(a, b));
            }
        }
        let error = check_move(State::Done, State::Running).unwrap_err();
        assert_eq!(
            (error.status(), error.detail()),
            (400, &"Transition not allowed with state: running".into())
        );
    }

    #[test]
    fn names_go_both_ways() {
        for name in State::NAMES {
            assert_eq!(State::from_name(name).unwrap().as_str(), name);
        }
        for name in Outcome::NAMES {
            assert_eq!(Outcome::from_name(name).unwrap().as_str(), name);
        }
        assert_eq!(State::from_name("Running"), None);
    }
}
