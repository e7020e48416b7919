//! Tokens good and bad, against keys of every kind.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Auth, Secret},
    metrics::AUTH_FAILURES,
    protocol::RoomName,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn with_secret() -> Auth {
    Auth { enabled: true, secret: Some(Secret::new(SECRET.to_owned())), ..Auth::default() }
}

fn with_pem(pem: &str) -> Auth {
    Auth { enabled: true, public_key: Some(pem.to_owned()), ..Auth::default() }
}

/// The rules and keys of a configuration.
struct Check {
    rules: Rules,
    keys: KeySet,
}

impl Check {
    fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let token = Token::parse(token)?;
        self.rules.check(&token, token.key(&self.keys).ok_or(AuthError::UnknownKey)?)
    }

    fn user(&self, token: &str) -> Result<String, AuthError> {
        self.verify(token).map(|identity| identity.user.unwrap().as_str().to_owned())
    }
}

fn check(auth: &Auth) -> Check {
    let keys = KeySet::new(load_keys(auth).unwrap().unwrap(), None);
    Check { rules: Rules::new(auth).unwrap(), keys }
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn claims() -> Value {
    json!({"sub": "alice", "iat": get_current_timestamp(), "exp": get_current_timestamp() + 60})
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

#[tokio::test]
async fn without_auth_everybody_is_let_in_with_the_defaults() {
    let readiness = Arc::new(Readiness::new(false, Duration::ZERO));
    let metrics = Arc::new(Metrics::new().unwrap());
    let start = |auth: &Auth| Authenticator::start(auth, &Tasks::default(), &readiness, &metrics);
    let authenticator = start(&Auth::default()).unwrap();
    let anyone = authenticator.identify(Some("nonsense")).await.unwrap();
    assert!(anyone.user.is_none() && anyone.voucher.is_none());
    assert!(anyone.permissions.publishes(&RoomName::lobby()) && !anyone.permissions.is_admin());
    assert!(start(&Auth { enabled: true, ..Auth::default() }).is_err());
    let guarded = start(&with_secret()).unwrap();
    assert_eq!(guarded.identify(None).await.unwrap_err(), AuthError::Missing);
    assert!(guarded.identify(Some(&hs256(&claims()))).await.is_ok());
}

#[test]
fn a_minted_token_verifies_and_carries_what_is_configured() {
    let auth = Auth { issuer: Some("me".to_owned()), audience: Some("chat".to_owned()), ..with_secret() };
    let permissions = json!({"rooms": {"u.{sub}": "s"}, "admin": true});
    let token = mint(&auth, "alice", Duration::from_secs(60), Some(permissions)).unwrap();
    let identity = check(&auth).verify(&token).unwrap();
    assert_eq!(identity.user.unwrap().as_str(), "alice");
    let voucher = identity.voucher.unwrap();
    assert_eq!(voucher.expires_at - voucher.issued_at, 60 + token::LEEWAY);
    assert!(identity.permissions.is_admin() && identity.permissions.reads(&RoomName::new("u.alice").unwrap()));
    assert!(!identity.permissions.reads(&RoomName::lobby()));
    assert!(check(&with_secret()).verify(&token).is_ok(), "an audience nobody asked for is no obstacle");
}

#[test]
fn minting_says_what_it_cannot_do() {
    let minute = Duration::from_secs(60);
    let pem = KeyPair::generate().unwrap().public_key_pem();
    let refusal = |auth: &Auth, sub: &str, ttl, permissions| mint(auth, sub, ttl, permissions).unwrap_err();
    assert!(matches!(refusal(&with_pem(&pem), "alice", minute, None), MintError::PublicKey));
    assert!(matches!(refusal(&Auth::default(), "alice", minute, None), MintError::Key(KeyError::NoSource)));
    assert!(matches!(refusal(&with_secret(), "", minute, None), MintError::Subject(_)));
    for ttl in [Duration::from_millis(999), Duration::from_secs(86_401)] {
        assert!(matches!(refusal(&with_secret(), "alice", ttl, None), MintError::Lifetime));
    }
    let unknown = Some(json!({"rooms": {"a": "x"}}));
    assert!(matches!(refusal(&with_secret(), "alice", minute, unknown), MintError::Permissions(_)));
}

#[test]
fn secrets_come_from_files_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\r\n")).unwrap();
    let auth = Auth { enabled: true, secret_file: Some(file.path().to_owned()), ..Auth::default() };
    assert!(check(&auth).verify(&hs256(&claims())).is_ok());
    std::fs::write(file.path(), "short\n").unwrap();
    assert!(matches!(load_keys(&auth), Err(KeyError::TooShort { key: "auth.secret_file", length: 5 })));
}

/// Keys of every kind, and what they are for.
fn pairs() -> [(KeyPair, Vec<Algorithm>); 4] {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    [
        (&PKCS_RSA_SHA256, vec![RS256, RS384, RS512, PS256, PS384, PS512]),
        (&PKCS_ECDSA_P256_SHA256, vec![ES256]),
        (&PKCS_ECDSA_P384_SHA384, vec![ES384]),
        (&PKCS_ED25519, vec![EdDSA]),
    ]
    .map(|(kind, algorithms)| (KeyPair::generate_for(kind).unwrap(), algorithms))
}

#[test]
fn public_keys_of_every_kind_verify_their_own_algorithms_only() {
    let pairs = pairs();
    for (pair, _) in &pairs {
        let pem = pair.public_key_pem();
        let check = check(&with_pem(&pem));
        for (other, theirs) in &pairs {
            for algorithm in theirs {
                let token = sign(*algorithm, &encoding_key(other, *algorithm), &claims());
                let expected =
                    if other.public_key_pem() == pem { Ok("alice".to_owned()) } else { Err(AuthError::BadSignature) };
                assert_eq!(check.user(&token), expected, "{algorithm:?}");
            }
        }
        // The classic: the public key as the secret of an HMAC.
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), pair.public_key_raw()] {
            let forged = sign(Algorithm::HS256, &EncodingKey::from_secret(secret), &claims());
            assert_eq!(check.user(&forged), Err(AuthError::BadSignature));
        }
        let one_line = with_pem(&pem.replace('\n', "\\n"));
        assert!(load_keys(&one_line).is_ok(), "line ends written as \\n");
    }
}

/// A key of a set: its public half, with these members besides.
fn jwk(pair: &KeyPair, more: &Value) -> Value {
    let key = Key::from_pem(&pair.public_key_pem()).unwrap();
    let mut jwk = serde_json::to_value(Jwk::from_decoding_key(key.decoding(), None).unwrap()).unwrap();
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

fn of_set(keys: &[Value]) -> Check {
    let text = serde_json::to_vec(&json!({"keys": keys})).unwrap();
    Check { rules: Rules::new(&with_secret()).unwrap(), keys: KeySet::new(key::from_jwks(&text, false).unwrap(), None) }
}

fn sign_as(kid: Option<&str>, algorithm: Algorithm, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, &claims(), key).unwrap()
}

#[test]
fn a_set_verifies_by_kid_and_by_kind() {
    let pairs = pairs();
    let keys: Vec<_> =
        pairs.iter().enumerate().map(|(n, (pair, _))| jwk(pair, &json!({"kid": n.to_string()}))).collect();
    let check = of_set(&keys);
    for (n, (pair, algorithms)) in pairs.iter().enumerate() {
        for algorithm in algorithms {
            let key = encoding_key(pair, *algorithm);
            for (kid, expected) in [
                (Some(n.to_string()), Ok("alice".to_owned())),
                (None, Ok("alice".to_owned())),
                (Some("other".to_owned()), Err(AuthError::UnknownKey)),
                (Some(((n + 1) % 4).to_string()), Err(AuthError::BadSignature)),
            ] {
                let verdict = check.user(&sign_as(kid.as_deref(), *algorithm, &key));
                assert_eq!(verdict, expected, "{algorithm:?} {kid:?}");
            }
        }
    }
    let n = keys[0]["n"].as_str().unwrap();
    let forged = sign_as(Some("0"), Algorithm::HS256, &EncodingKey::from_secret(n.as_bytes()));
    assert_eq!(check.user(&forged), Err(AuthError::BadSignature), "the modulus is no secret");
}

#[test]
fn without_a_kid_the_algorithm_must_leave_one_key() {
    let [one, two] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let algorithm = Algorithm::ES256;
    let key = |pair| encoding_key(pair, algorithm);
    let check = of_set(&[jwk(&one, &json!({})), jwk(&two, &json!({"kid": "two"}))]);
    assert_eq!(check.user(&sign_as(None, algorithm, &key(&one))), Err(AuthError::UnknownKey), "which of the two?");
    assert_eq!(check.user(&sign_as(Some("two"), algorithm, &key(&two))), Ok("alice".to_owned()));
    assert_eq!(
        check.user(&sign_as(Some("x"), algorithm, &key(&one))),
        Ok("alice".to_owned()),
        "the only one without a name"
    );
    assert_eq!(check.user(&sign_as(Some("x"), algorithm, &key(&two))), Err(AuthError::BadSignature));
}

#[test]
fn keys_of_a_set_that_are_not_for_us_are_passed_over() {
    let pair = KeyPair::generate().unwrap();
    let good = |more: Value| jwk(&pair, &more);
    let oct = |k: &str| json!({"kty": "oct", "k": k});
    let long = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    for (key, public, own) in [
        (good(json!({})), true, true),
        (good(json!({"alg": "ES256", "use": "sig", "key_ops": ["verify"]})), true, true),
        (good(json!({"alg": "ES384"})), false, false),
        (good(json!({"alg": "HS256"})), false, false),
        (good(json!({"use": "enc"})), false, false),
        (good(json!({"key_ops": ["sign"]})), false, false),
        (good(json!({"d": "AAAA"})), false, false),
        (good(json!({"crv": "P-384"})), false, false),
        (good(json!({"x": "AAAA"})), false, false),
        (good(json!({"kty": "RSA"})), false, false),
        (json!({"kty": "RSA", "n": "x".repeat(171), "e": "AQAB"}), false, false),
        (json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}), false, false),
        (json!({"kty": "EC"}), false, false),
        (json!("nonsense"), false, false),
        (oct(long), false, true),
        (oct("c2hvcnQ"), false, false),
    ] {
        let text = serde_json::to_vec(&json!({"keys": [key]})).unwrap();
        let usable = |secrets| key::from_jwks(&text, secrets).is_ok();
        assert_eq!((usable(false), usable(true)), (public, own), "{key}");
    }
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "<html>"] {
        assert!(key::from_jwks(bad.as_bytes(), true).is_err(), "{bad}");
    }
    let mixed = of_set(&[json!({"kty": "AKP"}), good(json!({"kid": "k"})), json!(1)]);
    assert!(mixed.user(&sign_as(Some("k"), Algorithm::ES256, &encoding_key(&pair, Algorithm::ES256))).is_ok());
}

#[test]
fn a_key_is_the_same_however_often_it_is_loaded() {
    let ids = |auth: &Auth| load_keys(auth).unwrap().unwrap().iter().map(Key::id).collect::<Vec<_>>();
    assert_eq!(ids(&with_secret()), ids(&with_secret()));
    let pem = KeyPair::generate().unwrap().public_key_pem();
    assert_eq!(ids(&with_pem(&pem)), ids(&with_pem(&pem)));
    assert_ne!(ids(&with_pem(&pem)), ids(&with_secret()));
    let check = check(&with_secret());
    let key = check.verify(&hs256(&claims())).unwrap().voucher.unwrap().key;
    assert!(check.keys.has(key) && !KeySet::default().has(key));
}

fn encoding_key(pair: &KeyPair, algorithm: Algorithm) -> EncodingKey {
    let pem = pair.serialize_pem();
    match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
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
        let error = load_keys(&with_pem(&pem)).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn claims_are_checked_strictly() {
    let auth = Auth { issuer: Some("me".to_owned()), audience: Some("chat".to_owned()), ..with_secret() };
    let check = check(&auth);
    let now = get_current_timestamp();
    let reason = |changes: Value| {
        let mut all = json!({"iss": "me", "aud": ["other", "chat"]});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        check.verify(&hs256(&claims_with(&all))).map_or_else(AuthError::reason, |_| "fine")
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
        (json!({"iat": now - 86_400}), "fine"),
        (json!({"iat": now - 86_410}), "too_old"),
        (json!({"iat": null}), "too_old"),
        (json!({"iat": now + 2}), "fine"),
        (json!({"iat": now + 60}), "not_yet_valid"),
        (json!({"iat": u64::MAX}), "not_yet_valid"),
        (json!({"iat": "now"}), "bad_claims"),
        (json!({"iat": -1}), "bad_claims"),
        (json!({"iat": [now]}), "bad_claims"),
        (json!({"chat": {"rooms": {"a": "s"}}}), "fine"),
        (json!({"chat": {"rooms": {"a": "r"}}}), "bad_permissions"),
        (json!({"chat": "admin"}), "bad_permissions"),
        (json!({"sub": null}), "bad_claims"),
        (json!({"sub": ""}), "bad_claims"),
        (json!({"sub": 7}), "bad_claims"),
        (json!({"sub": "a\nb"}), "bad_claims"),
        (json!({"sub": "x".repeat(129)}), "bad_claims"),
        (json!({"iss": null}), "bad_issuer"),
        (json!({"iss": "you"}), "bad_issuer"),
        (json!({"iss": 1}), "bad_issuer"),
        (json!({"iss": ["you", "me"]}), "bad_issuer"),
        (json!({"aud": null}), "bad_audience"),
        (json!({"aud": "other"}), "bad_audience"),
        (json!({"aud": []}), "bad_audience"),
        (json!({"aud": 1}), "bad_audience"),
    ] {
        assert_eq!(reason(changes.clone()), expected, "{changes}");
    }
    let forever = claims_with(&json!({"exp": u64::MAX, "iat": now - 5, "iss": "me", "aud": "chat"}));
    let voucher = check.verify(&hs256(&forever)).unwrap().voucher.unwrap();
    assert_eq!((voucher.issued_at, voucher.expires_at), (now - 5, now - 5 + 86_400 + token::LEEWAY));
    let ageless = Auth { max_token_age: Duration::from_secs(u64::MAX), ..with_secret() };
    let until = self::check(&ageless).verify(&hs256(&forever)).unwrap().voucher.unwrap().expires_at;
    assert_eq!(until, claims::LATEST + token::LEEWAY);
}

#[test]
fn what_is_no_token_is_told_apart() {
    let check = check(&with_secret());
    let good = hs256(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let crit = Header { crit: Some(vec!["b64".to_owned()]), ..Header::default() };
    let critical = encode(&crit, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    let of_type = |typ: &str| {
        let header = Header { typ: Some(typ.to_owned()), ..Header::default() };
        encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    };
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
        (of_type("logout+jwt"), AuthError::Malformed),
        (of_type("JWE"), AuthError::Malformed),
        (other_secret, AuthError::BadSignature),
        (format!("{}.{}.", parts[0], parts[1]), AuthError::BadSignature),
        (format!("{}.eyJzdWIiOiJib2IifQ.{}", parts[0], parts[2]), AuthError::BadSignature),
        ("x".repeat(8193), AuthError::TooLarge),
    ] {
        assert_eq!(check.user(&token), Err(expected), "{token}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        assert!(check.verify(&of_type(typ)).is_ok(), "{typ}");
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        assert!(check.verify(&sign(algorithm, &EncodingKey::from_secret(SECRET.as_bytes()), &claims())).is_ok());
    }
    assert!(matches!(check.verify(&hs256(&json!([1]))), Err(AuthError::BadClaims(_))));
}

#[test]
fn a_name_that_stands_twice_is_refused_wherever_it_stands() {
    let (now, then) = (get_current_timestamp(), get_current_timestamp() + 60);
    for text in [
        format!(r#"{{"sub":"alice","sub":"bob","iat":{now},"exp":{then}}}"#),
        format!(r#"{{"sub":"alice","iat":{now},"exp":{then},"chat":{{"rooms":{{"a":"","a":"s"}}}}}}"#),
        format!(r#"{{"sub":"alice","iat":{now},"exp":{then},"iat":0}}"#),
    ] {
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&text).unwrap();
        let token = encode(&Header::default(), &raw, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
        assert!(matches!(check(&with_secret()).verify(&token), Err(AuthError::BadClaims(_))), "{text}");
    }
}

#[test]
fn permissions_come_from_the_claim_or_else_the_defaults() {
    let default_rooms =
        [("u.{sub}", "sp"), ("lobby", "s")].map(|(room, letters)| (room.to_owned(), letters.to_owned()));
    let auth =
        Auth { claim: "https://example.com/chat".to_owned(), default_rooms: default_rooms.into(), ..with_secret() };
    let own = RoomName::new("u.alice").unwrap();
    let permissions = |changes: &Value| check(&auth).verify(&hs256(&claims_with(changes))).unwrap().permissions;
    let by_default = permissions(&json!({"chat": {"rooms": {"*": "spw"}}}));
    assert!(by_default.publishes(&own) && !by_default.publishes(&RoomName::lobby()));
    let by_claim = permissions(&json!({"https://example.com/chat": {"rooms": {"lobby": "p"}}}));
    assert!(!by_claim.publishes(&own) && by_claim.publishes(&RoomName::lobby()) && !by_claim.reads(&RoomName::lobby()));
}

#[test]
fn every_reason_is_a_label_and_no_message_is_empty() {
    let all = [
        AuthError::Missing,
        AuthError::Malformed,
        AuthError::Expired,
        AuthError::NotYetValid,
        AuthError::TooOld,
        AuthError::BadSignature,
        AuthError::UnknownKey,
        AuthError::BadIssuer,
        AuthError::BadAudience,
        claims::BAD_SUB,
        AuthError::BadPermissions(InvalidPermissions::Shape),
        AuthError::Ambiguous,
        AuthError::InUrl,
        AuthError::TooLarge,
        AuthError::AnotherUser,
        AuthError::Revoked,
        AuthError::KeysAway,
    ];
    assert_eq!(all.map(AuthError::reason), AUTH_FAILURES);
    assert!(all.iter().all(|error| error.to_string().len() > 20));
}

fn offered(headers: &[(&'static str, &str)]) -> Result<(Option<String>, Vec<String>, bool), AuthError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    offer(&map, None).map(|offer| (offer.token, offer.protocols, offer.bearer_only))
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
    assert!(!format!("{:?}", offer(&headers, None).unwrap()).contains("hunter2"));
    assert_eq!(offer(&headers, Some("another")), Err(AuthError::Ambiguous));
    assert_eq!(offer(&HeaderMap::new(), Some("t")).unwrap().token.as_deref(), Some("t"));
}
