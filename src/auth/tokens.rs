//! Access tokens: JWT, HS256, as all KernelCI services know them (contract 6.2).

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{ObjectId, Timestamp};

const AUDIENCE: &str = "fastapi-users:auth";
/// Longer texts are no tokens of ours, and need no work.
const LONGEST: usize = 8 * 1024;

/// Signs and verifies tokens.
pub struct Tokens {
    sign: EncodingKey,
    /// `SECRET_KEY` first, then `UNIFIED_SECRET`.
    verify: Vec<DecodingKey>,
    lifetime_seconds: u64,
    validation: Validation,
}

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub user: ObjectId,
    /// When it ends; `None` for tokens without an end.
    pub expires: Option<Timestamp>,
}

#[derive(Serialize)]
struct Issued<'a> {
    sub: String,
    aud: [&'a str; 1],
    exp: u64,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: Option<f64>,
}

impl Tokens {
    /// Keys and lifetime from the settings.
    pub fn new(secret: &str, unified: Option<&str>, lifetime_seconds: u64) -> Tokens {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "sub"]);
        validation.leeway = 0;
        let secrets = [Some(secret), unified.filter(|text| !text.trim().is_empty())];
        Tokens {
            sign: EncodingKey::from_secret(secret.as_bytes()),
            verify: secrets.iter().flatten().map(|text| DecodingKey::from_secret(text.as_bytes())).collect(),
            lifetime_seconds,
            validation,
        }
    }

    /// A token for this user.
    pub fn issue(&self, user: ObjectId) -> Result<String> {
        let now = Timestamp::now().millis().max(0) as u64 / 1000;
        let claims = Issued { sub: user.to_hex(), aud: [AUDIENCE], exp: now + self.lifetime_seconds };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.sign).map_err(Error::internal)
    }

    /// Whose token this is; `None` unless signature, audience and time are right. The user is not looked up.
    pub fn verify(&self, token: &str) -> Option<Verified> {
        if token.len() > LONGEST {
            return None;
        }
        let claims = self.verify.iter().find_map(|key| {
            jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok().map(|data| data.claims)
        })?;
        let expires = claims.exp.map(|seconds| Timestamp::from_millis((seconds * 1000.0) as i64));
        Some(Verified { user: claims.sub.parse().ok()?, expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_keys_audience_and_time_only() {
        let id = ObjectId::new();
        let tokens = Tokens::new("one", Some("two"), 60);
        let token = tokens.issue(id).unwrap();
        assert_eq!(tokens.verify(&token).map(|ok| ok.user), Some(id));
        assert!(
            Tokens::new("other", Some("one"), 60).verify(&token).is_some(),
            "the unified secret verifies"
        );
        assert!(Tokens::new("two", None, 60).verify(&token).is_none());
        assert!(tokens.verify(&format!("{token}x")).is_none());

        let sign = |claims: serde_json::Value| {
            let key = EncodingKey::from_secret(b"one");
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
        };
        let sub = id.to_hex();
        let good = sign(serde_json::json!({"sub": sub, "aud": AUDIENCE}));
        assert_eq!(tokens.verify(&good), Some(Verified { user: id, expires: None }), "no exp: never ends");
        for bad in [
            serde_json::json!({"sub": sub, "aud": "other"}),
            serde_json::json!({"sub": sub}),
            serde_json::json!({"sub": sub, "aud": AUDIENCE, "exp": 1}),
            serde_json::json!({"sub": "nobody", "aud": AUDIENCE}),
        ] {
            assert!(tokens.verify(&sign(bad.clone())).is_none(), "{bad}");
        }
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJhdWQiOiJmYXN0YXBpLXVzZXJzOmF1dGgifQ.";
        assert!(tokens.verify(none).is_none());
    }
}
