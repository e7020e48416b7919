//! Tokens good and bad, against keys of every kind.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Map, Value, json};

use super::*;
use crate::config::{Auth, Secret};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn with_secret() -> Auth {
    Auth { enabled: true, secret: Some(Secret::new(SECRET.to_owned())), ..Auth::default() }
}

fn with_pem(pem: &str) -> Auth {
    Auth { enabled: true, public_key: Some(pem.to_owned()), ..Auth::default() }
}

fn authenticator(auth: &Auth) -> Authenticator {
    Authenticator::new(auth).unwrap().unwrap()
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": get_current_timestamp() + 60})
}

/// The usual claims with these instead; `null` takes one away.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    for (claim, value) in changes.as_object().unwrap() {
        claims[claim] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

#[test]
fn no_auth_no_authenticator() {
    assert!(Authenticator::new(&Auth::default()).unwrap().is_none());
    assert!(matches!(Authenticator::new(&Auth { enabled: true, ..Auth::default() }), Err(KeyError::NoSource)));
}

#[test]
fn a_minted_token_verifies_and_carries_what_is_configured() {
    let auth = Auth { issuer: Some("me".to_owned()), audience: Some("chat".to_owned()), ..with_secret() };
    let extra = Map::from_iter([("chat".to_owned(), json!({"admin": true}))]);
    let token = mint_with(&auth, "alice", Duration::from_secs(60), extra).unwrap();
    let identity = authenticator(&auth).verify(&token).unwrap();
    assert_eq!(identity.user.as_str(), "alice");
    assert!((59..=60).contains(&(identity.expires_at - get_current_timestamp())));
    assert!(authenticator(&with_secret()).verify(&token).is_ok(), "an audience nobody asked for is no obstacle");
}

#[test]
fn minting_says_what_it_cannot_do() {
    let minute = Duration::from_secs(60);
    let pem = KeyPair::generate().unwrap().public_key_pem();
    assert!(matches!(mint(&with_pem(&pem), "alice", minute), Err(MintError::PublicKey)));
    assert!(matches!(mint(&Auth::default(), "alice", minute), Err(MintError::Key(KeyError::NoSource))));
    assert!(matches!(mint(&with_secret(), "", minute), Err(MintError::Subject(_))));
    assert!(matches!(mint(&with_secret(), "alice", Duration::from_millis(999)), Err(MintError::Lifetime)));
    let extra = Map::from_iter([("exp".to_owned(), json!(1))]);
    assert!(matches!(mint_with(&with_secret(), "alice", minute, extra), Err(MintError::Claim("exp"))));
}

#[test]
fn secrets_come_from_files_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\r\n")).unwrap();
    let auth = Auth { enabled: true, secret_file: Some(file.path().to_owned()), ..Auth::default() };
    assert!(authenticator(&auth).verify(&hs256(&claims())).is_ok());
    std::fs::write(file.path(), "short\n").unwrap();
    assert!(matches!(Authenticator::new(&auth), Err(KeyError::TooShort { key: "auth.secret_file", length: 5 })));
}

#[test]
fn public_keys_of_every_kind_verify_their_own_algorithms_only() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, RS256};
    let keys = [
        (&PKCS_RSA_SHA256, RS256, vec![RS256, PS256]),
        (&PKCS_ECDSA_P256_SHA256, ES256, vec![ES256]),
        (&PKCS_ECDSA_P384_SHA384, ES384, vec![ES384]),
        (&PKCS_ED25519, EdDSA, vec![EdDSA]),
    ];
    let keys = keys.map(|(kind, _, algorithms)| (KeyPair::generate_for(kind).unwrap(), algorithms));
    for (pair, algorithms) in &keys {
        let pem = pair.public_key_pem();
        let authenticator = authenticator(&with_pem(&pem));
        assert_eq!(authenticator.key.algorithms(), algorithms.as_slice());
        for (other, theirs) in &keys {
            for algorithm in theirs {
                let token = sign(*algorithm, &encoding_key(other, *algorithm), &claims());
                let verdict = authenticator.verify(&token).map(|identity| identity.user.as_str().to_owned());
                let expected =
                    if other.public_key_pem() == pem { Ok("alice".to_owned()) } else { Err(AuthError::BadSignature) };
                assert_eq!(verdict, expected, "{algorithm:?}");
            }
        }
        // The classic: the public key as the secret of an HMAC.
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), pair.public_key_raw()] {
            let forged = sign(Algorithm::HS256, &EncodingKey::from_secret(secret), &claims());
            assert_eq!(authenticator.verify(&forged), Err(AuthError::BadSignature));
        }
        let one_line = with_pem(&pem.replace('\n', "\\n"));
        assert!(Authenticator::new(&one_line).is_ok(), "line ends written as \\n");
    }
}

fn encoding_key(pair: &KeyPair, algorithm: Algorithm) -> EncodingKey {
    let pem = pair.serialize_pem();
    match algorithm {
        Algorithm::RS256 | Algorithm::PS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_ec_pem(pem.as_bytes()),
    }
    .unwrap()
}

#[test]
fn unusable_public_keys_are_refused_with_the_way_out() {
    let pair = KeyPair::generate().unwrap();
    let p521 = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA256).unwrap();
    let short_rsa = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMJjqYdYFvZOS5JknrqS74Z713IkXa1J\nu5U8kjHePYneC6ahwm2d7/p3GLDtKHEjXROP8xaByOMN5r27F7rIoQUCAwEAAQ==\n-----END PUBLIC KEY-----";
    for (pem, text) in [
        (pair.serialize_pem(), "private key; give the public half"),
        ("-----BEGIN CERTIFICATE-----\n".to_owned(), "certificate; give its key"),
        ("nonsense".to_owned(), "no -----BEGIN PUBLIC KEY-----"),
        (p521.public_key_pem(), "of another kind"),
        (short_rsa.to_owned(), "too short"),
    ] {
        let error = Authenticator::new(&with_pem(&pem)).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn claims_are_checked_strictly() {
    let auth = Auth { issuer: Some("me".to_owned()), audience: Some("chat".to_owned()), ..with_secret() };
    let authenticator = authenticator(&auth);
    let now = get_current_timestamp();
    let reason = |changes: Value| {
        let mut all = json!({"iss": "me", "aud": ["other", "chat"]});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        authenticator.verify(&hs256(&claims_with(&all))).map_or_else(AuthError::reason, |_| "fine")
    };
    for (changes, expected) in [
        (json!({}), "fine"),
        (json!({"exp": now - 2}), "fine"),
        (json!({"exp": now as f64 + 9.5}), "fine"),
        (json!({"exp": u64::MAX}), "fine"),
        (json!({"exp": now - 10}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"exp": null}), "bad_claims"),
        (json!({"exp": "tomorrow"}), "bad_claims"),
        (json!({"exp": (now + 60).to_string()}), "bad_claims"),
        (json!({"exp": -1}), "bad_claims"),
        (json!({"exp": 1e300}), "bad_claims"),
        (json!({"nbf": now - 60}), "fine"),
        (json!({"nbf": now + 2}), "fine"),
        (json!({"nbf": now + 60}), "not_yet_valid"),
        (json!({"nbf": "soon"}), "bad_claims"),
        (json!({"sub": null}), "bad_claims"),
        (json!({"sub": ""}), "bad_claims"),
        (json!({"sub": 7}), "bad_claims"),
        (json!({"sub": "a\nb"}), "bad_claims"),
        (json!({"sub": "x".repeat(129)}), "bad_claims"),
        (json!({"iss": null}), "bad_issuer"),
        (json!({"iss": "you"}), "bad_issuer"),
        (json!({"iss": 1}), "bad_issuer"),
        (json!({"aud": null}), "bad_audience"),
        (json!({"aud": "other"}), "bad_audience"),
        (json!({"aud": []}), "bad_audience"),
        (json!({"aud": 1}), "bad_audience"),
    ] {
        assert_eq!(reason(changes.clone()), expected, "{changes}");
    }
    let forever = claims_with(&json!({"exp": u64::MAX, "iss": "me", "aud": "chat"}));
    assert_eq!(authenticator.verify(&hs256(&forever)).unwrap().expires_at, LATEST);
}

#[test]
fn what_is_no_token_is_told_apart() {
    let authenticator = authenticator(&with_secret());
    let good = hs256(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let crit = Header { crit: Some(vec!["b64".to_owned()]), ..Header::default() };
    let critical = encode(&crit, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    let other_secret = sign(Algorithm::HS256, &EncodingKey::from_secret(b"another"), &claims());
    for (token, expected) in [
        (String::new(), AuthError::Malformed),
        ("..".to_owned(), AuthError::Malformed),
        ("x.y.z".to_owned(), AuthError::Malformed),
        ("\u{1F600}.é.\0".to_owned(), AuthError::Malformed),
        (format!("{none}.{}.", parts[1]), AuthError::Malformed),
        (format!("{none}.{}.{}", parts[1], parts[2]), AuthError::Malformed),
        (format!("{good}.more"), AuthError::Malformed),
        (critical, AuthError::Malformed),
        (other_secret, AuthError::BadSignature),
        (format!("{}.{}.", parts[0], parts[1]), AuthError::BadSignature),
        (format!("{}.eyJzdWIiOiJib2IifQ.{}", parts[0], parts[2]), AuthError::BadSignature),
        ("x".repeat(8193), AuthError::TooLarge),
    ] {
        assert_eq!(authenticator.verify(&token), Err(expected), "{token}");
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        assert!(
            authenticator.verify(&sign(algorithm, &EncodingKey::from_secret(SECRET.as_bytes()), &claims())).is_ok()
        );
    }
    assert!(matches!(authenticator.verify(&hs256(&json!([1]))), Err(AuthError::BadClaims(_))));
}

#[test]
fn a_repeated_claim_is_refused() {
    let text = format!(r#"{{"sub":"alice","sub":"bob","exp":{}}}"#, get_current_timestamp() + 60);
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&text).unwrap();
    let token = encode(&Header::default(), &raw, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    assert!(matches!(authenticator(&with_secret()).verify(&token), Err(AuthError::BadClaims(_))));
}

#[test]
fn every_reason_is_in_the_list_and_no_message_is_empty() {
    let all = [
        AuthError::Missing,
        AuthError::Malformed,
        AuthError::Expired,
        AuthError::NotYetValid,
        AuthError::BadSignature,
        AuthError::BadIssuer,
        AuthError::BadAudience,
        BAD_SUB,
        AuthError::Ambiguous,
        AuthError::TooLarge,
    ];
    assert_eq!(all.map(AuthError::reason), AuthError::REASONS);
    assert!(all.iter().all(|error| error.to_string().len() > 20));
}

fn offered(headers: &[(&'static str, &str)]) -> Result<(Option<String>, Vec<String>, bool), AuthError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    offer(&map).map(|offer| (offer.token, offer.protocols, offer.bearer_only))
}

#[test]
fn a_token_stands_in_one_of_two_places() {
    const PROTOCOL: &str = "sec-websocket-protocol";
    const AUTHORIZATION: &str = "authorization";
    let some = |text: &str| Some(text.to_owned());
    let protocols = |list: &[&str]| list.iter().map(|protocol| (*protocol).to_owned()).collect::<Vec<_>>();
    for (headers, expected) in [
        (vec![], Ok((None, vec![], false))),
        (vec![(AUTHORIZATION, "Bearer a.b.c")], Ok((some("a.b.c"), vec![], false))),
        (vec![(AUTHORIZATION, "bEARER   a.b.c ")], Ok((some("a.b.c"), vec![], false))),
        (vec![(AUTHORIZATION, "Basic eDp5")], Ok((None, vec![], false))),
        (vec![(AUTHORIZATION, "Basic eDp5"), (PROTOCOL, "bearer.t")], Ok((some("t"), vec![], true))),
        (vec![(PROTOCOL, "chat.v1, bearer.a.b.c")], Ok((some("a.b.c"), protocols(&["chat.v1"]), false))),
        (vec![(PROTOCOL, "x"), (PROTOCOL, ",bearer.t,y")], Ok((some("t"), protocols(&["x", "y"]), false))),
        (vec![(PROTOCOL, "bearer.t")], Ok((some("t"), vec![], true))),
        (vec![(PROTOCOL, "bearer.")], Err(AuthError::Malformed)),
        (vec![(AUTHORIZATION, "Bearer")], Err(AuthError::Malformed)),
        (vec![(AUTHORIZATION, "Bearer é")], Err(AuthError::Malformed)),
        (vec![(AUTHORIZATION, "Bearer t"), (PROTOCOL, "chat.v1, bearer.t")], Err(AuthError::Ambiguous)),
        (vec![(AUTHORIZATION, "Bearer t"), (AUTHORIZATION, "Bearer u")], Err(AuthError::Ambiguous)),
        (vec![(PROTOCOL, "bearer.t, bearer.t")], Err(AuthError::Ambiguous)),
    ] {
        assert_eq!(offered(&headers), expected, "{headers:?}");
    }
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer hunter2"));
    assert!(!format!("{:?}", offer(&headers).unwrap()).contains("hunter2"));
}
