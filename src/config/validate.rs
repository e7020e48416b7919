//! Which values make sense, alone and together.
//!
//! Owns the rules; the types have already refused what cannot be read. Finds every fault, not the first.

mod redis;

use std::time::Duration;

use http::Uri;
use tracing_subscriber::EnvFilter;

use super::{Auth, Config, Drain, History, Kubernetes, Limits, Log, Presence, Server, Telemetry, mask_url};
use crate::auth::{self, KeyError, Permissions};

/// A value that makes no sense.
#[derive(Debug)]
pub(super) struct Finding {
    /// The key to change.
    pub(super) key: &'static str,
    /// Another key that the rule looked at.
    pub(super) beside: Option<&'static str>,
    /// What was expected.
    pub(super) expected: String,
}

/// All findings of one check.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut rules = Rules(Vec::new());
    rules.server(&config.server);
    rules.auth(&config.auth);
    rules.limits(&config.limits);
    rules.history(&config.history);
    rules.presence(&config.presence);
    rules.redis(&config.redis);
    rules.drain(&config.drain);
    rules.log(&config.log);
    rules.telemetry(&config.telemetry);
    rules.kubernetes(&config.kubernetes);
    rules.0
}

/// The findings so far.
struct Rules(Vec<Finding>);

impl Rules {
    fn require(&mut self, holds: bool, key: &'static str, expected: impl Into<String>) {
        if !holds {
            self.0.push(Finding { key, beside: None, expected: expected.into() });
        }
    }

    fn require_both(&mut self, holds: bool, key: &'static str, beside: &'static str, expected: impl Into<String>) {
        if !holds {
            self.0.push(Finding { key, beside: Some(beside), expected: expected.into() });
        }
    }

    fn positive(&mut self, duration: Duration, key: &'static str) {
        self.require(!duration.is_zero(), key, "a duration above zero");
    }

    fn server(&mut self, server: &Server) {
        let (public, management) = (server.address, server.management_address);
        let same_ip =
            public.ip() == management.ip() || public.ip().is_unspecified() || management.ip().is_unspecified();
        let clash = same_ip && public.port() == management.port() && public.port() != 0;
        self.require_both(
            !clash,
            "server.management_address",
            "server.address",
            "another port than server.address has",
        );
        self.positive(server.header_timeout, "server.header_timeout");
        for network in &server.trusted_proxies {
            let expected = || format!("{network:?} to be a network such as 10.0.0.0/8 or fd00::/8");
            self.require(network.parse::<ipnet::IpNet>().is_ok(), "server.trusted_proxies", expected());
        }
        for origin in &server.origins {
            let expected = || {
                format!(
                    "{:?} to be an origin as browsers send it: http(s)://host or http(s)://host:port, \
                     lower case, without path, slash at the end, or the scheme's own port",
                    if origin.contains('@') { mask_url(origin) } else { origin.clone() }
                )
            };
            self.require(is_origin(origin), "server.origins", expected());
        }
    }

    fn auth(&mut self, auth: &Auth) {
        self.positive(auth.max_token_age, "auth.max_token_age");
        self.require(auth.jwks_max_age >= Duration::from_secs(1), "auth.jwks_max_age", "1s or more");
        const TAKEN: [&str; 6] = ["sub", "exp", "nbf", "iat", "iss", "aud"];
        let free = !auth.claim.is_empty() && !TAKEN.contains(&auth.claim.as_str());
        self.require(free, "auth.claim", format!("a name for a claim, other than {}", TAKEN.join(", ")));
        if let Err(error) = Permissions::new(&auth.default_rooms, None) {
            self.require(false, "auth.default_rooms", error.to_string());
        }
        self.keys(auth);
    }

    fn keys(&mut self, auth: &Auth) {
        if let Some(url) = &auth.jwks_url {
            let expected =
                "https://host[:port]/path, or http:// on this machine (127.0.0.1, [::1], localhost), without a user";
            self.require(is_jwks_url(url), "auth.jwks_url", expected);
            // The issuer signs for others too, with the same keys.
            for (key, value) in [("auth.issuer", &auth.issuer), ("auth.audience", &auth.audience)] {
                let expected = "a value, since auth.jwks_url is set: its keys sign tokens for others too";
                self.require_both(value.is_some() || !auth.enabled, key, "auth.jwks_url", expected);
            }
        }
        if !auth.enabled {
            // Looked at all the same, since it would be printed with the rest.
            let private = auth.public_key.as_ref().is_some_and(|pem| pem.contains("PRIVATE KEY-----"));
            return self.require(!private, "auth.public_key", "the public half, never the private key");
        }
        if let Err(error) = auth::load_keys(auth) {
            let beside = matches!(error, KeyError::NoSource).then_some("auth.enabled");
            self.0.push(Finding { key: error.key(), beside, expected: error.to_string() });
        }
    }

    fn limits(&mut self, limits: &Limits) {
        let message = limits.message_bytes;
        self.require((256..=1 << 20).contains(&message), "limits.message_bytes", "256B to 1MiB");
        let least = message.saturating_mul(2).saturating_add(4 << 10);
        self.require_both(
            (least..=1 << 30).contains(&limits.outbox_bytes),
            "limits.outbox_bytes",
            "limits.message_bytes",
            format!(
                "at least twice limits.message_bytes and 4KiB, {}, and at most 1GiB",
                super::value::bytes::text(least)
            ),
        );
        self.positive(limits.outbox_age, "limits.outbox_age");
        let beats = Duration::from_millis(200)..=Duration::from_secs(60 * 60);
        self.require(beats.contains(&limits.heartbeat), "limits.heartbeat", "200ms to 1h");
        let age = limits.connection_age;
        self.require(
            age.is_zero() || age >= limits.heartbeat,
            "limits.connection_age",
            "0s (no limit), or at least limits.heartbeat",
        );
        self.require((2..=10_000).contains(&limits.rooms), "limits.rooms", "2 to 10000");
        for (rate, key) in [
            (limits.messages_per_second, "limits.messages_per_second"),
            (limits.subscribes_per_second, "limits.subscribes_per_second"),
            (limits.upgrades_per_second, "limits.upgrades_per_second"),
            (limits.lobby_messages_per_second, "limits.lobby_messages_per_second"),
            (limits.new_rooms_per_user, "limits.new_rooms_per_user"),
        ] {
            self.require(rate <= 1_000_000, key, "0 (no limit) to 1000000");
        }
        let in_time = limits.bytes_per_second as f64 * limits.message_deadline.as_secs_f64();
        let fits = limits.bytes_per_second == 0 || in_time >= message as f64;
        self.require_both(
            fits && limits.bytes_per_second <= 1 << 30,
            "limits.bytes_per_second",
            "limits.message_bytes",
            "0 (no limit) to 1GiB, and enough for limits.message_bytes within limits.message_deadline",
        );
        self.positive(limits.message_deadline, "limits.message_deadline");
        let connections = limits.connections.unwrap_or(1);
        self.require((1..=10_000_000).contains(&connections), "limits.connections", "1 to 10000000, or unset");
    }

    fn history(&mut self, history: &History) {
        self.require((1..=1_000_000).contains(&history.messages), "history.messages", "1 to 1000000");
        self.positive(history.age, "history.age");
        self.require(history.local_bytes >= 1 << 20, "history.local_bytes", "1MiB or more");
    }

    fn presence(&mut self, presence: &Presence) {
        let leases = Duration::from_secs(3)..=Duration::from_secs(60 * 60);
        self.require(leases.contains(&presence.lease), "presence.lease", "3s to 1h");
        self.require_both(
            presence.linger <= presence.lease,
            "presence.linger",
            "presence.lease",
            "no longer than presence.lease",
        );
        self.require(presence.events_max <= 1000, "presence.events_max", "0 to 1000");
    }

    fn drain(&mut self, drain: &Drain) {
        let day = Duration::from_secs(24 * 60 * 60);
        self.require(drain.total() <= day, "drain.window", "delay, window and flush of at most a day together");
    }

    fn log(&mut self, log: &Log) {
        if let Err(error) = EnvFilter::builder().parse(&log.filter) {
            let expected =
                format!("a level (error, warn, info, debug, trace) or directives such as info,chat_api=debug: {error}");
            self.require(false, "log.filter", expected);
        }
    }

    fn telemetry(&mut self, telemetry: &Telemetry) {
        let endpoints =
            [("telemetry.endpoint", &telemetry.endpoint), ("telemetry.traces_endpoint", &telemetry.traces_endpoint)];
        for (key, endpoint) in endpoints {
            let expected =
                "http(s)://host[:port][/path], without user or query: credentials go into OTEL_EXPORTER_OTLP_HEADERS";
            self.require(endpoint.as_deref().is_none_or(is_endpoint), key, expected);
        }
        self.require((0.0..=1.0).contains(&telemetry.sampler_arg), "telemetry.sampler_arg", "a share from 0 to 1");
        self.positive(telemetry.timeout, "telemetry.timeout");
        self.require((1..=100_000).contains(&telemetry.queue), "telemetry.queue", "1 to 100000 spans");
    }

    fn kubernetes(&mut self, kubernetes: &Kubernetes) {
        let known = [("kubernetes.namespace", &kubernetes.namespace), ("kubernetes.pod_name", &kubernetes.pod_name)];
        for (key, value) in known {
            let expected = "a value from the downward API, since kubernetes.enabled is true";
            self.require_both(!kubernetes.enabled || value.is_some(), key, "kubernetes.enabled", expected);
        }
    }
}

/// Whether a text is what a browser writes into `Origin`, so that comparing texts is enough.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |b: u8| !b.is_ascii_uppercase() && !matches!(b, b'/' | b'@' | b'?' | b'#' | b'*');
    let parsed = authority.parse::<http::uri::Authority>();
    let port = parsed.as_ref().is_ok_and(|authority| {
        !authority.host().is_empty() && (authority.port_u16().is_some() || authority.as_str() == authority.host())
    });
    authority.bytes().all(plain) && port && !authority.ends_with(own_port)
}

fn is_jwks_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@')) else { return false };
    let here = matches!(authority.host(), "127.0.0.1" | "[::1]" | "localhost");
    !authority.host().is_empty() && (uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && here))
}

fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let host =
        uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    scheme && host && uri.query().is_none()
}
