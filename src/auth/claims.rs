//! What stands in a token, read strictly.
//!
//! The signature, `nbf`, `aud` and the dates' comparison are the library's. Here is what it leaves open: names that stand twice, `iat`, and claims
//! of a wrong type, which it takes for absent ones.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::AuthError;
use crate::protocol::UserId;

/// The end of the year 9999: later dates count as this one, so that no clock arithmetic overflows.
pub(super) const LATEST: u64 = 253_402_300_799;

pub(super) const BAD_SUB: AuthError =
    AuthError::BadClaims("`sub` must be a user id of 1 to 128 characters without control characters");
pub(super) const BAD_EXP: AuthError = AuthError::BadClaims("`exp` must be there, in seconds since 1970");
const BAD_IAT: AuthError = AuthError::BadClaims("`iat` must be in seconds since 1970");

/// A JSON object in which each name stands once, at every depth: readers differ in which of two they believe.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn user(&self) -> Result<UserId, AuthError> {
        let sub = self.0.get("sub").and_then(Value::as_str);
        sub.and_then(|sub| UserId::new(sub).ok()).ok_or(BAD_SUB)
    }

    pub(super) fn expires_at(&self) -> Result<u64, AuthError> {
        self.0.get("exp").and_then(seconds).ok_or(BAD_EXP)
    }

    /// 0 where the token does not say.
    pub(super) fn issued_at(&self) -> Result<u64, AuthError> {
        self.0.get("iat").map_or(Ok(0), |date| seconds(date).ok_or(BAD_IAT))
    }

    /// Whether there is one issuer at most: the library takes a list if one in it fits.
    pub(super) fn issuer_is_single(&self) -> bool {
        self.0.get("iss").is_none_or(Value::is_string)
    }

    pub(super) fn get(&self, claim: &str) -> Option<&Value> {
        self.0.get(claim)
    }
}

/// A date of the token in whole seconds; it may have a fraction.
fn seconds(date: &Value) -> Option<u64> {
    let whole = date.as_u64().or_else(|| date.as_f64().filter(|date| *date >= 0.0).map(|date| date as u64));
    whole.map(|seconds| seconds.min(LATEST))
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Unique::deserialize(deserializer)?.0 {
            Value::Object(claims) => Ok(Self(claims)),
            _ => Err(D::Error::custom("not an object")),
        }
    }
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Unique(value))) = entries.next_entry::<String, _>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_once_at_every_depth() {
        let text = r#"{"a":[1,-1,1.5,"x",true,null,{"b":{}}],"c":{"d":18446744073709551616}}"#;
        let claims: Claims = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(claims.0), serde_json::from_str::<Value>(text).unwrap());
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"\u0061":1}"#,
            "[]",
            "1",
        ] {
            assert!(serde_json::from_str::<Claims>(bad).is_err(), "{bad}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
        assert!(serde_json::from_str::<Claims>(&deep).is_err());
    }
}
