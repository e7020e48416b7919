//! Tokens, good and bad, of every kind: 401 before the upgrade.

use jsonwebtoken::{Algorithm, get_current_timestamp};
use serde_json::{Value, json};

use crate::support::{
    Client, Node, NodeBuilder, Signer,
    client::{Offer, Refused},
    http,
    token::{AUDIENCE, ISSUER, SECRET, base64url, changed, claims},
};

const PATH: &str = "/api/chat-api/ws/general";
const HISTORY: &str = "/api/chat-api/rooms/general/messages";

fn guarded() -> NodeBuilder {
    let node = Node::builder().env("AUTH_ENABLED", "true");
    node.env("CHAT_AUTH__ISSUER", ISSUER).env("CHAT_AUTH__AUDIENCE", AUDIENCE)
}

/// A file with a key set.
fn set_of(signers: &[&Signer]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let keys: Vec<_> = signers.iter().map(|signer| &signer.jwk).collect();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).expect("written");
    file
}

fn bearer(token: &str) -> Offer {
    Offer::default().header("authorization", format!("Bearer {token}"))
}

/// In, or the status and the code that it was refused with.
async fn open(node: &Node, offer: Offer) -> Result<Client, (u16, Value)> {
    let opened = Client::open(node.public, PATH, offer).await;
    opened.map_err(|Refused { status, mut problem, .. }| (status, problem["code"].take()))
}

async fn is_good(node: &Node, token: &str) {
    let opened = open(node, bearer(token)).await;
    assert!(opened.is_ok(), "{:?}: {token}", opened.err());
}

/// Each is refused, as a socket's and as a request's.
async fn are_bad(node: &Node, tokens: &[(&str, String)]) {
    let before = node.metric(r#"chat_upgrade_failures_total{reason="auth"}"#).await;
    for (what, token) in tokens {
        let refused = open(node, bearer(token)).await.err();
        assert_eq!(refused, Some((401, json!("auth"))), "{what}: {token}");
        let answer = http::get(node.public, HISTORY, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(answer.status, 401, "{what}: {token}");
    }
    let refusals = node.metric(r#"chat_upgrade_failures_total{reason="auth"}"#).await - before;
    assert!((refusals - tokens.len() as f64).abs() < f64::EPSILON, "{refusals} of {}", tokens.len());
    let log = node.log().join("\n");
    for (what, token) in tokens {
        let longest = token.split(['.', ' ']).max_by_key(|part| part.len()).unwrap_or_default();
        assert!(longest.len() < 16 || !log.contains(longest), "{what} is in the log");
    }
}

/// Everything that may be wrong with a token under a shared secret, one thing each.
fn mutations(signer: &Signer) -> Vec<(&'static str, String)> {
    let good = claims("alice");
    let text = good.to_string();
    let now = get_current_timestamp();
    let header = |changes: Value| signer.sign(&changed(&signer.header(), &changes).to_string(), &text);
    let raw = |header: &str| signer.sign(header, &text);
    let claim = |changes: Value| signer.token(&changed(&good, &changes));
    let token = signer.token(&good);
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let (head, payload) = message.split_once('.').expect("three parts");
    let none = |alg: &str| base64url(json!({ "alg": alg, "typ": "JWT" }).to_string().as_bytes());
    let flipped: String = signature.chars().rev().collect();
    let twice = |name: &str, value: Value| {
        signer.sign(&signer.header().to_string(), &text.replacen('{', &format!("{{{}:{value},", json!(name)), 1))
    };
    let chat = |value: Value| claim(json!({ "chat": value }));
    vec![
        // what is no JWT
        ("nothing", String::new()),
        ("one word", "token".into()),
        ("two parts", message.into()),
        ("four parts", format!("{token}.{signature}")),
        ("empty parts", "..".into()),
        ("a space in it", format!("{message} .{signature}")),
        ("two tokens", format!("{token} {token}")),
        ("longer than 8 KiB, signed", claim(json!({ "pad": "x".repeat(9000) }))),
        // headers
        ("alg none, unsigned", format!("{}.{payload}.", none("none"))),
        ("alg none, signed", format!("{}.{payload}.{signature}", none("none"))),
        ("alg None", format!("{}.{payload}.", none("None"))),
        ("alg NONE, signed with the secret", header(json!({ "alg": "NONE" }))),
        ("no alg", header(json!({ "alg": null }))),
        ("a number as alg", header(json!({ "alg": 256 }))),
        ("alg in lower case", header(json!({ "alg": "hs256" }))),
        ("an alg that nobody knows", header(json!({ "alg": "HS1024" }))),
        ("another alg than it is signed with", header(json!({ "alg": "HS384" }))),
        ("an alg for public keys", header(json!({ "alg": "RS256" }))),
        ("alg twice", raw(r#"{"alg":"none","alg":"HS256"}"#)),
        ("a header that is a list", raw(r#"["HS256"]"#)),
        ("a header that is no JSON", raw("HS256")),
        ("an extension that must be understood", header(json!({ "crit": ["b64"], "b64": false }))),
        ("a number as kid", header(json!({ "kid": 1 }))),
        ("another kind of token", header(json!({ "typ": "logout+jwt" }))),
        // signatures
        ("no signature", format!("{message}.")),
        ("a part of the signature", format!("{message}.{}", &signature[..20])),
        ("the signature backwards", format!("{message}.{flipped}")),
        ("the signature with padding", format!("{token}=")),
        ("another secret", Signer::secret(Algorithm::HS512).sign(&signer.header().to_string(), &text)),
        ("another's claims", format!("{head}.{}.{signature}", base64url(claims("root").to_string().as_bytes()))),
        ("a header changed afterwards", format!("{}.{payload}.{signature}", base64url(br#"{"alg":"HS256"}"#))),
        // dates
        ("no exp", claim(json!({ "exp": null }))),
        ("exp in the past", claim(json!({ "exp": now - 60 }))),
        ("exp 0", claim(json!({ "exp": 0 }))),
        ("exp below 0", claim(json!({ "exp": -1 }))),
        ("exp as a text", claim(json!({ "exp": (now + 60).to_string() }))),
        ("exp as a list", claim(json!({ "exp": [now + 60] }))),
        ("exp beyond all numbers", claim(json!({ "exp": 1e300 }))),
        ("nbf to come", claim(json!({ "nbf": now + 60 }))),
        ("nbf as a text", claim(json!({ "nbf": "now" }))),
        ("no iat", claim(json!({ "iat": null }))),
        ("iat two days ago", claim(json!({ "iat": now - 2 * 86_400 }))),
        ("iat to come", claim(json!({ "iat": now + 60 }))),
        ("iat as a text", claim(json!({ "iat": now.to_string() }))),
        // who and for whom
        ("no sub", claim(json!({ "sub": null }))),
        ("an empty sub", claim(json!({ "sub": "" }))),
        ("a number as sub", claim(json!({ "sub": 7 }))),
        ("a list as sub", claim(json!({ "sub": ["alice"] }))),
        ("a line end in sub", claim(json!({ "sub": "alice\nroot" }))),
        ("a NUL in sub", claim(json!({ "sub": "alice\0" }))),
        ("a sub that is too long", claim(json!({ "sub": "x".repeat(129) }))),
        ("no iss", claim(json!({ "iss": null }))),
        ("another iss", claim(json!({ "iss": "https://evil.example" }))),
        ("an iss that begins like ours", claim(json!({ "iss": format!("{ISSUER}.evil.example") }))),
        ("a list as iss", claim(json!({ "iss": ["https://evil.example", ISSUER] }))),
        ("no aud", claim(json!({ "aud": null }))),
        ("another aud", claim(json!({ "aud": "mail" }))),
        ("a list of other auds", claim(json!({ "aud": ["mail", "files"] }))),
        ("no aud in the list", claim(json!({ "aud": [] }))),
        ("an object as aud", claim(json!({ "aud": { AUDIENCE: true } }))),
        // claims as a whole
        ("sub twice", twice("sub", json!("root"))),
        ("exp twice", twice("exp", json!(now + 60))),
        ("aud twice", twice("aud", json!("mail"))),
        ("claims that are a list", signer.token(&json!([good]))),
        ("claims that are no JSON", signer.sign(&signer.header().to_string(), "alice")),
        ("claims without an end", signer.sign(&signer.header().to_string(), text.trim_end_matches('}'))),
        ("claims too deep", signer.token(&changed(&good, &json!({ "deep": deep(200) })))),
        // permissions
        ("permissions that are a text", chat(json!("admin"))),
        (
            "permissions that are null",
            signer.sign(&signer.header().to_string(), &text.replacen('{', r#"{"chat":null,"#, 1)),
        ),
        ("permissions with something unknown", chat(json!({ "rooms": {}, "root": true }))),
        ("admin as a text", chat(json!({ "admin": "true" }))),
        ("letters that mean nothing", chat(json!({ "rooms": { "general": "rw" } }))),
        ("a wildcard in the middle", chat(json!({ "rooms": { "*.general": "s" } }))),
    ]
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test]
async fn every_mutation_of_a_good_token_is_refused() {
    let signer = Signer::secret(Algorithm::HS256);
    let node = guarded().env("CHAT_AUTH__SECRET", SECRET).start().await;
    is_good(&node, &signer.token(&claims("alice"))).await;
    let mutations = mutations(&signer);
    assert!(mutations.len() > 60);
    are_bad(&node, &mutations).await;
    let good = signer.token(&claims("alice"));
    is_good(&node, &good).await;
    for (what, offer) in [
        ("two headers", bearer(&good).header("authorization", format!("Bearer {good}"))),
        (
            "header and subprotocol",
            bearer(&good).header("sec-websocket-protocol", format!("chat.plain, bearer.{good}")),
        ),
        (
            "two subprotocols",
            Offer::default().header("sec-websocket-protocol", format!("chat.plain, bearer.{good}, bearer.{good}")),
        ),
        ("another scheme", Offer::default().header("authorization", format!("Basic {good}"))),
        ("none", Offer::default()),
    ] {
        assert_eq!(open(&node, offer).await.err(), Some((401, json!("auth"))), "{what}");
    }
    let closed = r#"chat_auth_failures_total{reason="bad_permissions"}"#;
    assert!(node.metric(closed).await > 0.0);
    // What looks odd and is none of it.
    for changes in [
        json!({ "aud": ["mail", AUDIENCE] }),
        json!({ "exp": f64::from(u32::MAX) + 0.5 }),
        json!({ "exp": get_current_timestamp() - 2 }),
        json!({ "nbf": get_current_timestamp() + 2, "iat": get_current_timestamp() + 2 }),
        json!({ "sub": "Ålice 🦀", "more": { "of": [1, null] } }),
        json!({ "chat": { "rooms": { "general": "s" } } }),
    ] {
        is_good(&node, &signer.changed(&changes)).await;
    }
}

/// What may be wrong with a token under public keys: above all, whose word decides on the algorithm.
#[tokio::test]
async fn a_public_key_is_no_secret_and_decides_on_its_algorithm() {
    let [rsa, ec, ed] = [(Algorithm::RS256, "rsa"), (Algorithm::ES256, "ec"), (Algorithm::EdDSA, "ed")]
        .map(|(algorithm, kid)| Signer::pair(algorithm, kid));
    let [mallory, mallory_ec] =
        [(Algorithm::RS256, "rsa"), (Algorithm::ES256, "ec")].map(|(algorithm, kid)| Signer::pair(algorithm, kid));
    let second = Signer::pair(Algorithm::ES256, "ec.2");
    let file = set_of(&[&rsa, &ec, &ed, &second]);
    let node = guarded().env("CHAT_AUTH__JWKS_FILE", &file.path().display().to_string()).start().await;
    let good = claims("alice");
    for signer in [&rsa, &ec, &ed, &second] {
        is_good(&node, &signer.token(&good)).await;
    }
    let text = good.to_string();
    let as_header =
        |signer: &Signer, changes: Value| signer.sign(&changed(&signer.header(), &changes).to_string(), &text);
    let by_hmac = |secret: &[u8], kid: &str| {
        let header = base64url(json!({ "alg": "HS256", "kid": kid }).to_string().as_bytes());
        let message = format!("{header}.{}", base64url(text.as_bytes()));
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
        format!("{message}.{signature}")
    };
    let modulus = rsa.jwk["n"].as_str().expect("a modulus");
    let unsigned = |signer: &Signer, signature: &[u8]| {
        let token = signer.token(&good);
        format!("{}.{}", token.rsplit_once('.').expect("three parts").0, base64url(signature))
    };
    let tokens = [
        ("the PEM as a secret", by_hmac(rsa.pem.as_bytes(), "rsa")),
        ("the PEM without its line end as a secret", by_hmac(rsa.pem.trim_end().as_bytes(), "rsa")),
        ("the modulus as a secret", by_hmac(modulus.as_bytes(), "rsa")),
        ("the whole key as a secret", by_hmac(rsa.jwk.to_string().as_bytes(), "rsa")),
        ("no secret", by_hmac(b"", "rsa")),
        ("another's key under our kid", mallory.token(&good)),
        ("another's key in the header", as_header(&mallory, json!({ "jwk": mallory.jwk }))),
        ("another's address in the header", as_header(&mallory, json!({ "jku": "https://evil.example/keys" }))),
        ("another's certificate in the header", as_header(&mallory, json!({ "x5c": ["AAAA"] }))),
        ("another's EC key", mallory_ec.token(&good)),
        ("an unknown kid", as_header(&rsa, json!({ "kid": "none" }))),
        ("an empty kid", as_header(&rsa, json!({ "kid": "" }))),
        ("a path as kid", as_header(&rsa, json!({ "kid": "../../dev/null" }))),
        ("the kid of another key", as_header(&rsa, json!({ "kid": "ec" }))),
        ("no kid where two keys fit", as_header(&ec, json!({ "kid": null }))),
        ("PS256 said, RS256 done", as_header(&rsa, json!({ "alg": "PS256" }))),
        ("RS512 said, RS256 done", as_header(&rsa, json!({ "alg": "RS512" }))),
        ("ES384 said, ES256 done", as_header(&ec, json!({ "alg": "ES384" }))),
        ("EdDSA said, ES256 done", as_header(&ec, json!({ "alg": "EdDSA", "kid": "ed" }))),
        ("an EC signature of nothing but zeros", unsigned(&ec, &[0; 64])),
        ("an EC signature that is too long", unsigned(&ec, &[0x30; 72])),
        ("an Ed25519 signature of nothing but zeros", unsigned(&ed, &[0; 64])),
        ("an RSA signature of 1", unsigned(&rsa, &[&[0; 255][..], &[1]].concat())),
        ("another's key and no kid", as_header(&mallory, json!({ "kid": null }))),
    ];
    are_bad(&node, &tokens).await;
    is_good(&node, &as_header(&rsa, json!({ "kid": null }))).await;
    assert!(node.metric(r#"chat_auth_failures_total{reason="unknown_key"}"#).await > 0.0);
}

/// Every algorithm that the documentation names, from every place that keys may stand in.
#[tokio::test]
async fn every_algorithm_is_taken_from_its_key() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let secret = Signer::secret(HS256);
    let pairs = [(RS256, "rsa"), (ES256, "p256"), (ES384, "p384"), (EdDSA, "ed")]
        .map(|(algorithm, kid)| Signer::pair(algorithm, kid));
    let of = |signer: &Signer| match signer.algorithm {
        HS256 => vec![HS256, HS384, HS512],
        RS256 => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        only => vec![only],
    };
    let everything: Vec<&Signer> = pairs.iter().chain([&secret]).collect();
    let file = set_of(&everything);
    let node = guarded().env("CHAT_AUTH__JWKS_FILE", &file.path().display().to_string()).start().await;
    for signer in &everything {
        for algorithm in of(signer) {
            is_good(&node, &signer.with(algorithm).token(&claims("alice"))).await;
        }
    }
    for signer in &everything {
        let node = match signer.algorithm {
            HS256 => guarded().env("CHAT_AUTH__SECRET", SECRET),
            _ => guarded().env("CHAT_AUTH__PUBLIC_KEY", &signer.pem),
        };
        let node = node.start().await;
        for algorithm in of(signer) {
            is_good(&node, &signer.with(algorithm).token(&claims("alice"))).await;
        }
        for other in everything.iter().filter(|other| other.algorithm != signer.algorithm) {
            let refused = open(&node, bearer(&other.token(&claims("alice")))).await.err();
            assert_eq!(refused, Some((401, json!("auth"))), "{:?} by {:?}", other.algorithm, signer.algorithm);
        }
    }
}

#[tokio::test]
async fn a_token_in_the_url_is_refused_unless_it_is_asked_for() {
    let token = Signer::secret(Algorithm::HS256).token(&claims("alice"));
    let path = format!("{PATH}?token={token}");
    let node = guarded().env("CHAT_AUTH__SECRET", SECRET).start().await;
    let refused = Client::open(node.public, &path, Offer::default()).await.err().expect("refused");
    assert_eq!((refused.status, &refused.problem["code"]), (401, &json!("auth")));
    let node = guarded().env("CHAT_AUTH__SECRET", SECRET).env("CHAT_AUTH__QUERY_TOKEN", "true");
    let node = node.env("CHAT_LOG__FILTER", "trace").start().await;
    let mut client = Client::open(node.public, &path, Offer::default()).await.expect("in");
    client.ping().await;
    for (path, offer, status) in [
        (format!("{PATH}?token={token}x"), Offer::default(), 401),
        (format!("{PATH}?token="), Offer::default(), 401),
        (path.clone(), bearer(&token), 401),
        (format!("{path}&token={token}"), Offer::default(), 400),
    ] {
        let refused = Client::open(node.public, &path, offer).await.err().expect("refused");
        assert_eq!(refused.status, status, "{path}");
        assert!(!refused.problem.to_string().contains(&token));
    }
    let answer = http::get(node.public, &format!("{HISTORY}?token={token}"), &[]).await;
    assert_eq!(answer.status, 401, "requests can have headers");
    let signature = token.rsplit('.').next().expect("three parts");
    assert!(!node.log().join("\n").contains(signature), "the query is not logged, at no level");
}

#[tokio::test]
async fn foreign_origins_are_403_whatever_the_token() {
    let token = Signer::secret(Algorithm::HS256).token(&claims("alice"));
    let node = guarded().env("CHAT_AUTH__SECRET", SECRET);
    let node = node.env("CHAT_SERVER__ORIGINS", "https://app.example,http://localhost:3000").start().await;
    let origins =
        |origins: &[&str]| origins.iter().fold(bearer(&token), |offer, origin| offer.header("origin", *origin));
    for good in ["https://app.example", "http://localhost:3000"] {
        assert!(open(&node, origins(&[good])).await.is_ok(), "{good}");
    }
    let bad: [&[&str]; 20] = [
        &["null"],
        &[""],
        &["http://app.example"],
        &["https://app.example:8443"],
        &["https://app.example:443"],
        &["https://app.example/"],
        &["https://app.example.evil.example"],
        &["https://evil.example/https://app.example"],
        &["https://evil.example#https://app.example"],
        &["https://app.example@evil.example"],
        &["https://appXexample"],
        &["https://sub.app.example"],
        &["https://APP.example"],
        &["https://xn--app-9la.example"],
        &["http://localhost"],
        &["http://localhost:3001"],
        &["file://"],
        &["chrome-extension://app.example"],
        &["https://app.example, https://evil.example"],
        &["https://app.example", "https://evil.example"],
    ];
    for origin in bad {
        assert_eq!(open(&node, origins(origin)).await.err(), Some((403, json!("origin"))), "{origin:?}");
        let mut headers: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).collect();
        let authorization = format!("Bearer {token}");
        headers.push(("authorization", &authorization));
        let answer = http::get(node.public, HISTORY, &headers).await;
        assert_eq!(answer.status, 403, "{origin:?}");
        let allowed = answer.header("access-control-allow-origin");
        assert!(allowed.is_empty() || origin.len() > 1, "{origin:?}: {allowed}");
    }
    let same_host = guarded().env("CHAT_AUTH__SECRET", SECRET).start().await;
    let own = format!("http://{}", same_host.public);
    assert!(open(&same_host, origins(&[&own])).await.is_ok());
    for foreign in ["http://127.0.0.1", "null", &own.replace("127.0.0.1", "localhost")] {
        assert_eq!(open(&same_host, origins(&[foreign])).await.err(), Some((403, json!("origin"))), "{foreign}");
    }
}
