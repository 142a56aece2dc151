//! Access tokens: JWT, HS256, as all KernelCI services know them (contract 6.2); and the tokens that are mailed.
//!
//! Beyond the contract our own tokens say when they were issued (`iat`), which one they are (`jti`), and how often
//! their user's password had been changed by then (`gen`). Named tokens have an audience of their own, so that no
//! other service takes them for a login. A new password does not end them, unless it was set with a mailed token.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{NamedToken, ObjectId, Timestamp, User};

const LOGIN: &str = "fastapi-users:auth";
const NAMED: &str = "kernelci-live:token";
/// Longer texts are no tokens of ours, and need no work.
const LONGEST: usize = 8 * 1024;

/// The token of `Authorization: Bearer …`; anything else counts as absent (contract 1.3).
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Signs and verifies tokens.
pub struct Tokens {
    sign: EncodingKey,
    /// `SECRET_KEY` first, then `UNIFIED_SECRET`.
    verify: Vec<DecodingKey>,
    lifetime_seconds: u64,
}

/// What a token says whose signature, audience and time are right. Whether it still counts is
/// [`Identities`](super::Identities)' to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The user.
    pub user: ObjectId,
    /// When it ends; `None` for tokens without an end.
    pub expires: Option<Timestamp>,
    /// Tells it from all others: its signature.
    pub key: Arc<str>,
    /// The named token that it is.
    pub named: Option<ObjectId>,
    generation: Option<u32>,
    issued: Option<i64>,
}

impl Token {
    /// Whether it has outlived all changes of its user's password. A token that names no generation has if it was
    /// issued since the last one.
    pub fn is_current(&self, user: &User) -> bool {
        match (self.generation, user.tokens_from) {
            (Some(generation), _) if self.named.is_some() => generation >= user.named_from,
            (Some(generation), _) => generation == user.generation,
            (None, None) => true,
            // `iat` is in whole seconds: the benefit of the doubt for the one of the change.
            (None, Some(from)) => self.issued.is_some_and(|issued| issued >= from.millis() / 1000),
        }
    }
}

#[derive(Serialize)]
struct Issued<'a> {
    sub: String,
    aud: [&'a str; 1],
    exp: i64,
    iat: i64,
    jti: String,
    r#gen: u32,
}

#[derive(Clone, Deserialize)]
struct Claims {
    sub: String,
    exp: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
    r#gen: Option<u32>,
}

impl Tokens {
    /// Keys and lifetime from the settings.
    pub fn new(secret: &str, unified: Option<&str>, lifetime_seconds: u64) -> Tokens {
        let secrets = [Some(secret), unified.filter(|text| !text.trim().is_empty())];
        Tokens {
            sign: EncodingKey::from_secret(secret.as_bytes()),
            verify: secrets.iter().flatten().map(|text| DecodingKey::from_secret(text.as_bytes())).collect(),
            lifetime_seconds,
        }
    }

    /// How long a token of a login is good.
    pub fn lifetime_seconds(&self) -> u64 {
        self.lifetime_seconds
    }

    /// A token for this user, who has logged in.
    pub fn issue(&self, user: &User) -> Result<String> {
        let expires = Timestamp::now().plus_seconds(i64::try_from(self.lifetime_seconds).unwrap_or(i64::MAX));
        self.access(user, LOGIN, uuid::Uuid::new_v4().simple().to_string(), expires)
    }

    /// The token that a user has made and named.
    pub fn issue_named(&self, user: &User, named: &NamedToken) -> Result<String> {
        self.access(user, NAMED, named.id.to_hex(), named.expires)
    }

    fn access(&self, user: &User, audience: &str, jti: String, expires: Timestamp) -> Result<String> {
        self.sign(&Issued {
            sub: user.id.to_hex(),
            aud: [audience],
            exp: expires.millis() / 1000,
            iat: Timestamp::now().millis() / 1000,
            jti,
            r#gen: user.generation,
        })
    }

    /// What an access token says, once for each secret that verifies it.
    pub fn verify(&self, token: &str) -> Vec<Token> {
        let login = self.verify.iter().filter_map(|key| read(token, key, LOGIN, Until::Expired));
        let named = self.verify.first().and_then(|key| read(token, key, NAMED, Until::Expired));
        let named = named.and_then(|(claims, read)| {
            let id = claims.jti.as_deref()?.parse().ok()?;
            Some(Token { named: Some(id), ..read })
        });
        login.map(|(_, token)| token).chain(named).collect()
    }

    /// What a token says that a login has given at some time, whether it still counts or not: its user was once where it
    /// is now.
    pub fn remembered(&self, token: &str) -> Option<Token> {
        let login = self.verify.iter().find_map(|key| read(token, key, LOGIN, Until::Forever));
        login.map(|(_, token)| token)
    }

    /// Tells this text from all others without giving it away, to whoever has no key of ours. A token that is mailed has
    /// that of what it changes, so that it does so once.
    pub fn fingerprint(&self, text: &str) -> Result<String> {
        // No signed token begins like this.
        let message = format!("fingerprint\0{text}");
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.sign, Algorithm::HS256).map_err(Error::internal)
    }

    /// Signs the claims of a token that is mailed.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.sign).map_err(Error::internal)
    }

    /// The claims of a token from [`Tokens::sign`] that has not expired and has this audience, or none.
    pub fn open<T: DeserializeOwned + Clone>(&self, token: &str, audience: Option<&str>) -> Option<T> {
        decode(token, self.verify.first()?, audience, Until::Expired)
    }
}

/// How long what a token says is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Expired,
    Forever,
}

fn read(token: &str, key: &DecodingKey, audience: &str, until: Until) -> Option<(Claims, Token)> {
    let claims: Claims = decode(token, key, Some(audience), until)?;
    let (_, signature) = token.rsplit_once('.')?;
    let token = Token {
        user: claims.sub.parse().ok()?,
        expires: claims.exp.map(|seconds| Timestamp::from_millis((seconds * 1000.0) as i64)),
        key: signature.into(),
        named: None,
        generation: claims.r#gen,
        issued: claims.iat.map(|seconds| seconds as i64),
    };
    Some((claims, token))
}

fn decode<T: DeserializeOwned + Clone>(
    token: &str,
    key: &DecodingKey,
    audience: Option<&str>,
    until: Until,
) -> Option<T> {
    if token.len() > LONGEST {
        return None;
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.validate_exp = until == Until::Expired;
    match audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["aud", "sub"]);
        }
        None => {
            validation.validate_aud = false;
            validation.set_required_spec_claims(&["exp", "sub"]);
        }
    }
    Some(jsonwebtoken::decode::<T>(token, key, &validation).ok()?.claims)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user() -> User {
        User { id: ObjectId::new(), ..User::default() }
    }

    #[test]
    fn a_token_is_good_for_its_keys_audience_and_time_only() {
        let user = user();
        let tokens = Tokens::new("one", Some("two"), 60);
        let token = tokens.issue(&user).unwrap();
        assert_eq!(tokens.verify(&token).iter().map(|ok| ok.user).collect::<Vec<_>>(), [user.id]);
        let other = Tokens::new("other", Some("one"), 60);
        assert_eq!(other.verify(&token).len(), 1, "the unified secret verifies");
        assert_eq!(Tokens::new("one", Some("one"), 60).verify(&token).len(), 2, "both are tried");
        assert!(Tokens::new("two", None, 60).verify(&token).is_empty());
        assert!(tokens.verify(&format!("{token}x")).is_empty());

        let sign = |claims: serde_json::Value| {
            let key = EncodingKey::from_secret(b"one");
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
        };
        let sub = user.id.to_hex();
        for aud in [json!(LOGIN), json!(["x", LOGIN])] {
            let good = tokens.verify(&sign(json!({"sub": sub, "aud": aud}))).pop().unwrap();
            assert_eq!((good.user, good.expires, good.named), (user.id, None, None), "no exp: never ends");
        }
        for bad in [
            json!({"sub": sub, "aud": "other"}),
            json!({"sub": sub}),
            json!({"sub": sub, "aud": LOGIN, "exp": 1}),
            json!({"sub": "nobody", "aud": LOGIN}),
            json!({"sub": sub, "aud": NAMED}),
        ] {
            assert!(tokens.verify(&sign(bad.clone())).is_empty(), "{bad}");
        }
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJhdWQiOiJmYXN0YXBpLXVzZXJzOmF1dGgifQ.";
        assert!(tokens.verify(none).is_empty());
    }

    /// The signature tells a token from others, so there must be one way only to write it.
    #[test]
    fn a_signature_has_one_spelling() {
        let tokens = Tokens::new("one", None, 60);
        let token = tokens.issue(&user()).unwrap();
        let last = token.chars().last().unwrap();
        for other in ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("-_=".chars()).filter(|c| *c != last)
        {
            let changed = format!("{}{other}", &token[..token.len() - 1]);
            assert!(tokens.verify(&changed).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_changed_password_ends_older_tokens() {
        let tokens = Tokens::new("one", Some("two"), 60);
        let mut user = user();
        let first = tokens.verify(&tokens.issue(&user).unwrap()).pop().unwrap();
        let foreign = |iat: Option<i64>| Token { generation: None, issued: iat, ..first.clone() };
        assert!(first.is_current(&user) && foreign(None).is_current(&user));
        (user.generation, user.tokens_from) = (1, Some(Timestamp::from_millis(1_000_500)));
        assert!(!first.is_current(&user));
        let named = Token { named: Some(ObjectId::new()), ..first.clone() };
        assert!(named.is_current(&user));
        assert!(!named.is_current(&User { named_from: 1, ..user.clone() }));
        assert!(tokens.verify(&tokens.issue(&user).unwrap())[0].is_current(&user));
        for (iat, current) in [(None, false), (Some(999), false), (Some(1000), true), (Some(1001), true)] {
            assert_eq!(foreign(iat).is_current(&user), current, "{iat:?}");
        }
    }

    #[test]
    fn a_login_is_remembered_beyond_its_end() {
        let (user, tokens) = (user(), Tokens::new("one", Some("two"), 60));
        let ended = |audience: &str| {
            tokens
                .sign(&json!({"sub": user.id.to_hex(), "aud": [audience], "exp": 1, "jti": user.id.to_hex()}))
        };
        let login = ended(LOGIN).unwrap();
        assert!(tokens.verify(&login).is_empty());
        assert_eq!(tokens.remembered(&login).map(|token| token.user), Some(user.id));
        assert!(Tokens::new("other", None, 60).remembered(&login).is_none());
        for other in [NAMED, "fastapi-users:reset"] {
            assert!(tokens.remembered(&ended(other).unwrap()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_named_token_is_no_login_and_not_signed_by_others() {
        let user = user();
        let named = NamedToken {
            id: ObjectId::new(),
            user: user.id,
            name: "n".into(),
            scope: crate::model::Scope::Read,
            created: Timestamp::now(),
            last_used: None,
            expires: Timestamp::now().plus_seconds(60),
        };
        let tokens = Tokens::new("one", Some("two"), 60);
        let text = tokens.issue_named(&user, &named).unwrap();
        let read = tokens.verify(&text);
        assert_eq!(read.iter().map(|token| token.named).collect::<Vec<_>>(), [Some(named.id)]);
        assert!(
            Tokens::new("two", Some("one"), 60).verify(&text).is_empty(),
            "the unified secret makes none"
        );
    }
}
