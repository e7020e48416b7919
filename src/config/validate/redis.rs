//! The rules of `[redis]`.

use super::{
    super::{Redis, Secret},
    Rules,
};
use crate::broadcaster::{Certificates, place_of};

impl Rules {
    pub(super) fn redis(&mut self, redis: &Redis) {
        let url = redis.url.as_ref().map(Secret::expose);
        if let Some(problem) = url.and_then(problem) {
            let forms = "redis://[user:password@]host[:port][/db], rediss://… for TLS, or unix:///path";
            self.require(false, "redis.url", format!("{forms}, or empty for none: {problem}"));
        }
        self.require_both(
            url.is_some() || !redis.required,
            "redis.url",
            "redis.required",
            "a value, since redis.required is true: where many nodes run without Redis, each is a chat of its own (is the Secret's key empty?)",
        );
        self.positive(redis.timeout, "redis.timeout");
        self.require_both(
            redis.publish_deadline >= redis.timeout,
            "redis.publish_deadline",
            "redis.timeout",
            "redis.timeout or more",
        );
        self.require((1..=64).contains(&redis.publishers), "redis.publishers", "1 to 64");
        let grammar = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let prefix = (1..=64).contains(&redis.prefix.len()) && redis.prefix.bytes().all(grammar);
        self.require(prefix, "redis.prefix", "1 to 64 of A-Z a-z 0-9 _ . -");
        self.sentinels(redis);
        self.certificates(redis);
    }

    fn sentinels(&mut self, redis: &Redis) {
        for sentinel in &redis.sentinels {
            let expected = || format!("{sentinel:?} to be host:port");
            self.require(place_of(sentinel).is_some(), "redis.sentinels", expected());
        }
        if redis.sentinels.is_empty() {
            for (set, key) in [
                (redis.sentinel_user.is_some(), "redis.sentinel_user"),
                (redis.sentinel_password.is_some(), "redis.sentinel_password"),
            ] {
                self.require_both(!set, key, "redis.sentinels", "nothing, since redis.sentinels names none");
            }
            return;
        }
        let is_set = |url: &str| {
            redis::parse_redis_url(url)
                .is_some_and(|url| matches!(url.scheme(), "redis" | "rediss") && url.port().is_none())
        };
        let names_a_set =
            redis.url.as_ref().map(Secret::expose).is_some_and(|url| problem(url).is_some() || is_set(url));
        self.require_both(
            names_a_set,
            "redis.url",
            "redis.sentinels",
            "redis://[user:password@]set or rediss://…, without a port: the name of the master's set, as redis.sentinels are set",
        );
    }

    fn certificates(&mut self, redis: &Redis) {
        let set = [
            (&redis.tls_ca_file, "redis.tls_ca_file"),
            (&redis.tls_cert_file, "redis.tls_cert_file"),
            (&redis.tls_key_file, "redis.tls_key_file"),
        ];
        let tls = redis.url.as_ref().is_some_and(|url| url.expose().starts_with("rediss://"));
        for (_, key) in set.into_iter().filter(|(file, _)| file.is_some() && !tls) {
            self.require_both(false, key, "redis.url", "nothing, since redis.url does not begin with rediss://");
        }
        if tls && let Err(error) = Certificates::read(redis) {
            self.require(false, error.key, error.to_string());
        }
    }
}

/// What is wrong with a URL; never repeats it.
fn problem(url: &str) -> Option<String> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("redis" | "rediss" | "redis+unix" | "unix")) {
        return Some("it does not begin with one of these".to_owned());
    }
    if url.contains("$(") {
        return Some(
            "a $(NAME) in it was not replaced; in Kubernetes that variable must be defined before this one".to_owned(),
        );
    }
    let error = redis::Client::open(url).err()?.to_string().to_lowercase();
    let problem = error.split(" - ").next().unwrap_or(&error); // the rest is the driver's name for its kind of error
    Some(format!("{problem} (special characters of a password must be escaped: %40 for @, %2F for /)"))
}
