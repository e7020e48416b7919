//! Keys that an issuer hands out over HTTP: fetched, rotated, asked for, and away.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::future::join_all;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    Client, Issuer, Node, NodeBuilder, Signer,
    client::Offer,
    eventually,
    issuer::Manner,
    tls::Https,
    token::{AUDIENCE, ISSUER, claims},
};

const FAILED: &str = r#"chat_jwks_fetches_total{outcome="failed"}"#;
const FETCHED: &str = r#"chat_jwks_fetches_total{outcome="ok"}"#;

fn trusting(issuer: &Issuer) -> NodeBuilder {
    trusting_url(&issuer.url())
}

fn trusting_url(url: &str) -> NodeBuilder {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__JWKS_URL", url);
    node.env("CHAT_AUTH__ISSUER", ISSUER).env("CHAT_AUTH__AUDIENCE", AUDIENCE)
}

/// In, or the status and the code that it was refused with.
async fn open(node: &Node, signer: &Signer) -> Result<Client, (u16, Value)> {
    let token = signer.token(&claims("alice"));
    let offer = Offer::default().header("authorization", format!("Bearer {token}"));
    let opened = Client::open(node.public, "/api/chat-api/ws/r", offer).await;
    opened.map_err(|mut refused| (refused.status, refused.problem["code"].take()))
}

async fn is_let_in(node: &Node, signer: &Signer) {
    let opened = open(node, signer).await;
    assert!(opened.is_ok(), "{}: {:?}", signer.kid, opened.err());
}

async fn reasons(node: &Node) -> Value {
    node.manage("/readyz").await.json()["reasons"].take()
}

fn signer(kid: &str) -> Signer {
    Signer::pair(Algorithm::ES256, kid)
}

#[tokio::test]
async fn a_rotated_key_is_taken_up_by_its_first_token() {
    let issuer = Issuer::start().await;
    let (old, new) = (signer("old"), Signer::pair(Algorithm::RS256, "new"));
    issuer.publish(&[&old]);
    let node = trusting(&issuer).start().await;
    for _ in 0..3 {
        is_let_in(&node, &old).await;
    }
    assert_eq!(issuer.asked(), 1, "the keys are kept");
    issuer.publish(&[&old, &new]);
    is_let_in(&node, &new).await;
    is_let_in(&node, &old).await;
    assert_eq!(issuer.asked(), 2);
    let impostor = signer("new");
    assert_eq!(open(&node, &impostor).await.err(), Some((401, json!("auth"))), "another key under that name");
    assert_eq!(issuer.asked(), 2);
    let changed = node.line(|line| line["message"] == "the issuer's keys have changed" && line["new"] == 1);
    assert!(changed.is_some(), "{:?}", node.log());
}

/// A key that the issuer has withdrawn is gone with the next set.
#[tokio::test]
async fn a_withdrawn_key_is_not_taken_any_more() {
    let issuer = Issuer::start().await;
    let (old, new) = (signer("old"), signer("new"));
    issuer.publish(&[&old, &new]);
    let node = trusting(&issuer).env("CHAT_AUTH__JWKS_MAX_AGE", "3s").start().await;
    is_let_in(&node, &old).await;
    issuer.publish(&[&new]);
    eventually("the old key is gone", || async { open(&node, &old).await.is_err() }).await;
    is_let_in(&node, &new).await;
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_one_question() {
    let issuer = Issuer::start().await;
    let known = signer("known");
    issuer.publish(&[&known]);
    let node = trusting(&issuer).start().await;
    let asked = issuer.asked();
    let stranger = signer("stranger");
    let start = Instant::now();
    for round in 0..20 {
        let strangers: Vec<_> = (0..50).map(|n| stranger.named(&format!("unknown-{round}-{n}"))).collect();
        let refused = join_all(strangers.iter().map(|stranger| open(&node, stranger))).await;
        assert!(refused.into_iter().all(|refused| refused.err() == Some((401, json!("auth")))));
        is_let_in(&node, &known).await;
    }
    assert!(start.elapsed() < Duration::from_secs(28), "the interval was not over");
    assert_eq!(issuer.asked() - asked, 1, "1000 tokens, one fetch");
    assert!((node.metric(r#"chat_auth_failures_total{reason="unknown_key"}"#).await - 1000.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_silent_issuer_holds_nobody_up_for_long() {
    let issuer = Issuer::start().await;
    let known = signer("known");
    issuer.publish(&[&known]);
    let node = trusting(&issuer).start().await;
    issuer.answer(Manner::Silence);
    let strangers: Vec<_> = (0..20).map(|n| signer(&format!("unknown-{n}"))).collect();
    let start = Instant::now();
    let refused = join_all(strangers.iter().map(|stranger| open(&node, stranger)));
    let (refused, ()) = tokio::join!(refused, async {
        for _ in 0..20 {
            is_let_in(&node, &known).await;
        }
    });
    assert!(refused.into_iter().all(|refused| refused.err() == Some((401, json!("auth")))));
    let waited = start.elapsed(); // 2 s, and what a busy machine adds
    assert!(waited >= Duration::from_millis(1900) && waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(open(&node, &strangers[0]).await.err(), Some((401, json!("auth"))));
    assert!(issuer.asked() <= 3, "one question for all of them, and the next try after it failed");
}

/// A node that starts without its issuer is live and waits.
#[tokio::test]
async fn a_start_without_the_issuer_waits_for_it() {
    let mut issuer = Issuer::absent();
    let known = signer("known");
    let node = trusting(&issuer).launch().await;
    assert_eq!(node.manage("/livez").await.status, 200);
    assert_eq!(node.manage("/startupz").await.status, 200);
    assert_eq!(reasons(&node).await, json!(["auth: no keys from the issuer"]));
    assert_eq!(
        open(&node, &known).await.err(),
        Some((503, json!("unavailable"))),
        "nothing is known against the token"
    );
    issuer.publish(&[&known]);
    issuer.restart().await;
    eventually("it is ready", || async { reasons(&node).await == json!([]) }).await;
    is_let_in(&node, &known).await;
}

/// While the issuer is away its keys count, up to their age; sockets stay open; and when it is back, all is well by itself.
#[tokio::test]
async fn an_outage_is_no_login_outage_until_the_keys_are_too_old() {
    let mut issuer = Issuer::start().await;
    let known = signer("known");
    issuer.publish(&[&known]);
    let node = trusting(&issuer).env("CHAT_AUTH__JWKS_MAX_AGE", "6s").start().await;
    let mut socket = open(&node, &known).await.expect("in");
    issuer.stop().await;
    eventually("it is noticed", || async { node.metric(FAILED).await >= 1.0 }).await;
    is_let_in(&node, &known).await;
    assert_eq!(reasons(&node).await, json!([]), "everybody's trouble, and none yet");
    eventually("the keys are too old", || async {
        open(&node, &known).await.err() == Some((503, json!("unavailable")))
    })
    .await;
    eventually("it is not ready", || async { reasons(&node).await == json!(["auth: no keys from the issuer"]) }).await;
    socket.ping().await;
    socket.send(json!({ "type": "auth", "token": known.token(&claims("alice")), "ref": "x" })).await;
    let answer = socket.next().await;
    assert_eq!((&answer["code"], &answer["retryable"]), (&json!("unavailable"), &json!(true)), "not closed for it");
    let next = signer("next");
    issuer.publish(&[&known, &next]);
    issuer.restart().await;
    eventually("it is ready again", || async { reasons(&node).await == json!([]) }).await;
    is_let_in(&node, &next).await;
    is_let_in(&node, &known).await;
    socket.ping().await;
}

/// Answers that are no key set change nothing, and lead nowhere else.
#[tokio::test]
async fn bad_answers_leave_the_last_good_set() {
    let elsewhere = Issuer::start().await;
    let (known, mallory) = (signer("known"), signer("mallory"));
    elsewhere.publish(&[&mallory]);
    let keys = json!({ "keys": [known.jwk, mallory.jwk] }).to_string();
    let manners = [
        Manner::Redirect(elsewhere.url()),
        Manner::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Manner::Status(StatusCode::NO_CONTENT),
        Manner::Body("<html>Sign in</html>".into()),
        Manner::Body(r#"{"keys":[]}"#.into()),
        Manner::Body(json!({ "keys": [Signer::secret(Algorithm::HS256).jwk] }).to_string()),
        Manner::Body(keys[..keys.len() - 1].to_owned()),
        Manner::Body(format!("{}{keys}", " ".repeat(300 << 10))),
    ];
    let tried = manners.into_iter().map(async |manner| {
        let issuer = Issuer::start().await;
        issuer.publish(&[&known]);
        let node = trusting(&issuer).start().await;
        issuer.answer(manner.clone());
        assert_eq!(open(&node, &mallory).await.err(), Some((401, json!("auth"))), "{manner:?}");
        assert!(issuer.asked() > 1 && node.metric(FAILED).await >= 1.0, "{manner:?}");
        assert!((node.metric(FETCHED).await - 1.0).abs() < f64::EPSILON, "{manner:?}");
        is_let_in(&node, &known).await;
        assert_eq!(reasons(&node).await, json!([]), "{manner:?}");
    });
    join_all(tried).await;
    assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
}

#[tokio::test]
async fn keys_come_over_tls_from_a_trusted_server_only() {
    let known = signer("known");
    let server = Https::start(json!({ "keys": [known.jwk] }).to_string());
    let other = Https::start(String::new());
    let trust = |authority: std::path::PathBuf| {
        trusting_url(&server.url()).env("SSL_CERT_FILE", &authority.display().to_string())
    };
    let node = trust(server.authority()).start().await;
    is_let_in(&node, &known).await;
    let node = trust(other.authority()).launch().await;
    eventually("it has tried", || async { node.metric(FAILED).await >= 1.0 }).await;
    assert_eq!(open(&node, &known).await.err(), Some((503, json!("unavailable"))));
    let warning = node.line(|line| line["message"] == "cannot fetch the issuer's keys").expect("a warning");
    assert!(warning["error"].as_str().expect("a text").contains("invalid peer certificate"), "{warning}");
}
