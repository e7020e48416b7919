//! Names for our keys that others gave: the platform's (`REDIS_URL`, `PORT`, …) and OpenTelemetry's.
//!
//! Owns what those names mean. A key that is set under both its names to two values is a mistake: neither is
//! silently the stronger.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use figment::value::Value;

use super::{
    Config,
    source::{Loader, variable},
    value,
};

/// How an alias writes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the key does.
    Text,
    /// `true`, `false`, `1` or `0`, in any case.
    Flag,
    /// The port of an address.
    Port,
    /// A duration as a number of milliseconds.
    Milliseconds,
}

/// Alias, key and form. Of two for one key, the later beats the former, as OpenTelemetry has it.
const ALIASES: [(&str, &str, Form); 14] = [
    ("REDIS_URL", "redis.url", Form::Text),
    ("AUTH_ENABLED", "auth.enabled", Form::Flag),
    ("PORT", "server.address", Form::Port),
    ("MANAGEMENT_PORT", "server.management_address", Form::Port),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.endpoint", Form::Text),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "telemetry.traces_endpoint", Form::Text),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "telemetry.protocol", Form::Text),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "telemetry.protocol", Form::Text),
    ("OTEL_SERVICE_NAME", "telemetry.service_name", Form::Text),
    ("OTEL_TRACES_SAMPLER", "telemetry.sampler", Form::Text),
    ("OTEL_TRACES_SAMPLER_ARG", "telemetry.sampler_arg", Form::Text),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "telemetry.timeout", Form::Milliseconds),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "telemetry.timeout", Form::Milliseconds),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "telemetry.queue", Form::Text),
];

/// What the aliases say beyond the keys.
#[derive(Debug)]
pub(super) struct Aliases {
    /// Traces are not exported, whatever the endpoints are.
    pub(super) export_off: bool,
}

impl Aliases {
    /// Gives the loader what the aliases say.
    pub(super) fn read(env: &BTreeMap<String, String>, loader: &mut Loader) -> Self {
        for (name, key, form) in ALIASES {
            let strongest = ALIASES.iter().rfind(|(other, same, _)| *same == key && given(env, other).is_some());
            let beaten = strongest.is_some_and(|(other, ..)| *other != name);
            if let Some(text) = given(env, name).filter(|_| !beaten) {
                read_one(name, key, form, text, env, loader);
            }
        }
        let disabled = env.get("OTEL_SDK_DISABLED").is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        Self { export_off: exporter_off(env, loader) || disabled }
    }
}

/// What a variable says. OpenTelemetry's say nothing when they are empty.
fn given<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name).map(|text| text.trim()).filter(|text| !(text.is_empty() && name.starts_with("OTEL_")))
}

fn exporter_off(env: &BTreeMap<String, String>, loader: &mut Loader) -> bool {
    const NAME: &str = "OTEL_TRACES_EXPORTER";
    match given(env, NAME) {
        None | Some("otlp") => false,
        Some("none") => true,
        Some(other) => {
            loader.mistake(NAME, Some(format!("{other:?}")), "the environment", "expected otlp or none");
            false
        }
    }
}

fn read_one(name: &str, key: &str, form: Form, text: &str, env: &BTreeMap<String, String>, loader: &mut Loader) {
    let ours = variable(key);
    let text = match convert(form, key, text, loader) {
        Ok(text) => text,
        Err(expected) => return loader.mistake(key, Some(format!("{text:?}")), name, expected),
    };
    if env.get(&ours).is_some_and(|other| !same(form, &text, other.trim())) {
        return loader.mistake(
            key,
            None,
            &format!("{name} and {ours}"),
            "the two differ: set one of them, or both to the same",
        );
    }
    loader.give(key.split('.').map(str::to_owned).collect(), Value::from(text), name);
}

/// An alias's value as its key writes it.
fn convert(form: Form, key: &str, text: &str, loader: &Loader) -> Result<String, &'static str> {
    match form {
        Form::Text => Ok(text.to_owned()),
        Form::Flag => flag(text).map(|flag| flag.to_string()).ok_or("expected true, false, 1 or 0"),
        Form::Milliseconds => {
            let milliseconds = text.parse().map_err(|_| "expected a number of milliseconds")?;
            Ok(humantime::format_duration(Duration::from_millis(milliseconds)).to_string())
        }
        Form::Port => {
            let port = text.parse().map_err(|_| "expected a port, 0 to 65535")?;
            let mut address =
                loader.text(key).and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| default_address(key));
            address.set_port(port);
            Ok(address.to_string())
        }
    }
}

fn default_address(key: &str) -> SocketAddr {
    let server = Config::default().server;
    if key == "server.address" { server.address } else { server.management_address }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Whether two texts mean the same.
fn same(form: Form, ours: &str, theirs: &str) -> bool {
    ours == theirs
        || match form {
            Form::Flag => flag(theirs).is_some_and(|theirs| flag(ours) == Some(theirs)),
            Form::Milliseconds => {
                value::duration::parse(theirs).is_some_and(|theirs| value::duration::parse(ours) == Some(theirs))
            }
            Form::Text | Form::Port => false,
        }
}
