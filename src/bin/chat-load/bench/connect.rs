//! Many sockets opened at once: the CPU of an upgrade next to a bare one of axum's, without and with a token.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, get_current_timestamp, jwk::Jwk,
};
use serde_json::{Value, json};

use super::{
    Bed, peer,
    report::Report,
    row::{Row, Unit, micros},
    watch::Watch,
};
use crate::{
    cpu,
    pairs::{Leg, Pair, Spread},
    process::Process,
    sockets::Sockets,
};

/// Sockets in a room.
const ROOM: usize = 5;
/// Tokens verified to know what that takes.
const VERIFIED: usize = 500;
/// Name of the key.
const KID: &str = "bench";

/// A server, and what has become of those who came to it.
struct Door<'a> {
    server: Process,
    /// A line for the head of each request; none: nobody needs a token.
    tokens: &'a [String],
    failures: Vec<String>,
    /// Of the storms that nobody disturbed.
    upgrade_ms: Vec<f64>,
}

impl<'a> Door<'a> {
    fn new(server: Process, tokens: &'a [String]) -> Self {
        Self { server, tokens, failures: Vec::new(), upgrade_ms: Vec::new() }
    }

    /// Opens so many at once; the goodbyes are not measured.
    fn storm(&mut self, bed: &Bed) -> anyhow::Result<Leg> {
        let mut sockets = Sockets::new(self.server.address)?;
        let request = |n: usize| (format!("/connect-{}", n / ROOM), self.tokens.get(n).cloned().unwrap_or_default());
        let connects = bed.plan.connects;
        let watch = Watch::begin(bed, &self.server)?;
        let leg = Leg::of(&self.server, bed.cores, || sockets.open(connects, request).map(|()| connects))?;
        self.failures.extend_from_slice(sockets.failures());
        if watch.quiet()? {
            self.upgrade_ms.extend_from_slice(sockets.upgrade_ms());
        }
        sockets.close()?;
        Ok(leg)
    }
}

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let tokens = issuer.tokens(bed.plan.connects)?;
    let verification = issuer.verification_ns(bed, tokens.first().context("a token")?)?;
    let with_token = [("AUTH_ENABLED", "true"), ("CHAT_AUTH__JWKS_FILE", issuer.set.to_str().context("a path")?)];
    let peer = match peer::present(bed)? {
        Some(program) => Some(bed.peer(program, Some(peer::SMALL_BUFFER))?),
        None => None,
    };
    let mut peer = peer.map(|peer| Door::new(peer, &[]));
    let taken_off = format!("; one verification, {}, is taken off", micros(verification / 1e3));
    let (mut failures, connects) = (0, bed.plan.connects);
    for (what, settings, tokens, less) in [
        ("an upgrade", [].as_slice(), [].as_slice(), None),
        ("an upgrade with an ES256 token", with_token.as_slice(), tokens.as_slice(), Some(verification)),
    ] {
        let mut ours = Door::new(bed.node(settings)?, tokens);
        ours.storm(bed)?; // memory is there from here on
        if let Some(peer) = &mut peer {
            peer.storm(bed)?;
            let pairs = bed.rules.collect(|| {
                let first = peer.storm(bed)?;
                let mut leg = ours.storm(bed)?;
                leg.cpu_ns_per_delivery -= less.unwrap_or_default();
                Ok(Pair::new(first, leg, peer.storm(bed)?))
            })?;
            let what = format!("{what}, {connects} at once ÷ axum's");
            let row = Row::ratio(&what, bed.rules.pairs, &pairs).target(1.3);
            let figures = row.figures.clone() + if less.is_some() { &taken_off } else { "" };
            report.add(row.figures(figures))?;
            report.keep(&what, None, pairs);
        } else {
            ours.storm(bed)?;
        }
        failures += ours.failures.len();
        let p99 = quantile(&mut ours.upgrade_ms, 0.99);
        let row = Row::of(format!("{what}: p99 from connect to 101, 64 at a time"), Unit::Milliseconds, &[p99]);
        report.add(row.figures(ours.failures.first().cloned().unwrap_or_default()))?;
    }
    report.add(Row::of("upgrades that failed", Unit::Count, &[failures as f64]).target(0.0).exact())
}

/// Of values in any order.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Somebody who signs tokens, and a file with the public half of the key.
struct Issuer {
    key: EncodingKey,
    public: Jwk,
    set: PathBuf,
}

impl Issuer {
    fn new() -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pair = pair.map_err(|_| anyhow!("no key could be made"))?;
        let key = EncodingKey::from_ec_der(pair.as_ref());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        public.common.key_id = Some(KID.to_owned());
        let set = std::env::temp_dir().join(format!("chat-load-{:016x}.json", fastrand::u64(..)));
        fs::write(&set, json!({ "keys": [public] }).to_string()).with_context(|| set.display().to_string())?;
        Ok(Self { key, public, set })
    }

    /// A header line for each of so many users.
    fn tokens(&self, users: usize) -> anyhow::Result<Vec<String>> {
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::ES256) };
        let now = get_current_timestamp();
        let claims = |n: usize| json!({ "sub": format!("user-{n}"), "iat": now, "exp": now + 3600 });
        let token = |n| Ok(format!("Authorization: Bearer {}\r\n", encode(&header, &claims(n), &self.key)?));
        (0..users).map(token).collect()
    }

    /// CPU of checking one token, on the server's core.
    fn verification_ns(&self, bed: &Bed, line: &str) -> anyhow::Result<f64> {
        let token = line.trim_end().rsplit(' ').next().unwrap_or_default();
        let key = DecodingKey::from_jwk(&self.public)?;
        let validation = Validation::new(Algorithm::ES256);
        cpu::pin(bed.cores.server)?;
        let mut measured = Vec::new();
        for _ in 0..3 {
            let before = cpu::Snapshot::take(std::process::id(), bed.cores.server)?;
            for _ in 0..VERIFIED {
                decode::<Value>(token, &key, &validation)?;
            }
            let used = before.until(&cpu::Snapshot::take(std::process::id(), bed.cores.server)?).process;
            measured.push(used.as_secs_f64() * 1e9 / VERIFIED as f64);
        }
        cpu::pin(bed.cores.client)?;
        Ok(Spread::of(measured.into_iter()).context("measured")?.median)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.set);
    }
}
