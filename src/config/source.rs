//! Where values come from: the file, the environment, OpenTelemetry's and the platform's names for them.
//!
//! Owns the layers and the list of mistakes. Every value is tried alone on top of the defaults, so that one bad value
//! does not hide the next; figment by itself stops at the first.

use std::{collections::BTreeMap, fmt, path::Path};

use figment::{
    Figment,
    error::Kind,
    providers::Serialized,
    value::{Dict, Value},
};

use super::{Config, alias::Aliases, validate, value};

/// Begins the name of every variable that is ours.
const PREFIX: &str = "CHAT_";
/// Names the file instead of `--config`.
const CONFIG_FILE: &str = "CHAT_CONFIG";
/// Shown without its password.
const REDIS_URL: &str = "redis.url";
/// Keys whose values are never shown.
const SECRETS: [&str; 4] = ["auth.secret", "auth.public_key", REDIS_URL, "redis.sentinel_password"]; // a private key may stand where a public one should

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, or what stands where a key should.
    pub key: String,
    /// The value, secrets masked; `None` where it does not matter.
    pub value: Option<String>,
    /// The variable or the file.
    pub origin: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key.escape_debug())?; // a quoted key of a file may hold a line end
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " (from {}): {}", self.origin, self.expected)
    }
}

/// All that is wrong with the configuration, one line each.
#[derive(Debug, Clone)]
pub struct ConfigErrors(Vec<Mistake>);

impl ConfigErrors {
    /// The mistakes, in the order of the layers.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} mistake{plural} in the configuration:", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The process's environment. Variables that are not Unicode lose those characters instead of ending the process.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Keys that `file` sets and `env` too: what the file says of them has no effect.
#[must_use]
pub fn shadowed(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let env = set_variables(env);
    let mut loader = Loader::default();
    if let Some(path) = file.or_else(|| env.get(CONFIG_FILE).map(Path::new)) {
        loader.file(path);
    }
    let in_file = loader.given.len();
    loader.variables(&env);
    Aliases::read(&env, &mut loader);
    let (file, env) = loader.given.split_at(in_file);
    let shadowed = file.iter().map(Given::key).filter(|key| env.iter().any(|given| given.key() == *key));
    shadowed.collect()
}

impl Config {
    /// Reads the layers: defaults, then `file` (or what `CHAT_CONFIG` names), then `env`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let env = set_variables(env);
        let mut loader = Loader::default();
        if let Some(path) = file.or_else(|| env.get(CONFIG_FILE).map(Path::new)) {
            loader.file(path);
        }
        loader.variables(&env);
        let aliases = Aliases::read(&env, &mut loader);
        let mut config = loader.merge();
        if aliases.export_off {
            (config.telemetry.endpoint, config.telemetry.traces_endpoint) = (None, None);
        }
        loader.validate(&config);
        if loader.mistakes.is_empty() { Ok(config) } else { Err(ConfigErrors(loader.mistakes)) }
    }

    /// What is in force, as TOML; secrets masked, unset keys named in comments.
    #[must_use]
    pub fn effective_toml(&self) -> String {
        let text = toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"));
        let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(self) else { return text };
        let unset = |header: &str| {
            let section = header.strip_prefix('[')?.strip_suffix(']')?;
            let keys = sections.get(section)?.as_object()?.iter().filter(|(_, value)| value.is_null());
            let keys: Vec<_> = keys.map(|(key, _)| key.as_str()).collect();
            (!keys.is_empty()).then(|| format!("# not set: {}\n", keys.join(", ")))
        };
        let line = |line: &str| format!("{line}\n{}", unset(line).unwrap_or_default());
        text.lines().map(line).collect()
    }
}

/// The variables that say something: an empty one is unset, except where empty means none.
fn set_variables(env: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let may_be_empty = |name: &str| matches!(name, "REDIS_URL" | "CHAT_REDIS__URL");
    env.into_iter().filter(|(name, value)| !value.trim().is_empty() || may_be_empty(name)).collect()
}

/// One value that someone gave.
pub(super) struct Given {
    /// The key's parts.
    path: Vec<String>,
    value: Value,
    origin: String,
}

impl Given {
    fn key(&self) -> String {
        self.path.join(".")
    }

    /// The value as the only one in a tree.
    fn tree(&self) -> Value {
        let nest = |inner, part: &String| Value::from(Dict::from([(part.clone(), inner)]));
        self.path.iter().rev().fold(self.value.clone(), nest)
    }
}

/// The layers so far, lowest first, and what is wrong with them.
#[derive(Default)]
pub(super) struct Loader {
    given: Vec<Given>,
    mistakes: Vec<Mistake>,
}

impl Loader {
    /// Adds a mistake.
    pub(super) fn mistake(&mut self, key: &str, value: Option<String>, origin: &str, expected: impl Into<String>) {
        self.mistakes.push(Mistake {
            key: key.to_owned(),
            value,
            origin: origin.to_owned(),
            expected: expected.into(),
        });
    }

    /// What was last given for a key, if it was a text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.given.iter().rfind(|given| given.key() == key)?.value.as_str()
    }

    /// Adds a value if it can stand where it is; else a mistake.
    pub(super) fn give(&mut self, path: Vec<String>, value: Value, origin: &str) {
        let given = Given { path, value, origin: origin.to_owned() };
        let alone = Figment::from(Serialized::defaults(Config::default())).merge(Serialized::defaults(given.tree()));
        match alone.extract_lossy::<Config>() {
            Ok(_) => self.given.push(given),
            Err(error) => {
                let unknown = matches!(error.kind, Kind::UnknownField(..));
                let value = (!unknown).then(|| shown(&given.key(), &given.value));
                self.mistake(&given.key(), value, origin, expected(error.kind));
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let expected = format!("cannot be read: {error}; name another, or none for the defaults");
                return self.mistake("the configuration file", None, &origin, expected);
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.table(&mut Vec::new(), table, &origin),
            // Not the error's own text: that quotes the line, which may hold a secret.
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let problem = error.message().lines().next().unwrap_or("it does not parse");
                self.mistake(
                    "the configuration file",
                    None,
                    &format!("{origin}, line {line}"),
                    format!("is not TOML: {problem}"),
                );
            }
        }
    }

    /// Takes a table apart into sections, and those into single values.
    fn table(&mut self, path: &mut Vec<String>, table: toml::Table, origin: &str) {
        for (key, value) in table {
            path.push(key);
            match value {
                toml::Value::Table(inner) if path.len() == 1 && !inner.is_empty() => self.table(path, inner, origin),
                value => match Value::serialize(&value) {
                    Ok(value) => self.give(path.clone(), value, origin),
                    Err(error) => self.mistake(&path.join("."), None, origin, error.to_string()),
                },
            }
            path.pop();
        }
    }

    fn variables(&mut self, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(PREFIX).filter(|_| name != CONFIG_FILE) else { continue };
            match rest.split_once("__") {
                Some((section, key)) => {
                    let path = vec![section.to_lowercase(), key.to_lowercase()];
                    self.give(path, Value::from(value.as_str()), name);
                }
                None => self.mistake(name, None, "the environment", not_ours(rest)),
            }
        }
    }

    /// All layers in one.
    fn merge(&mut self) -> Config {
        let merge = |layers: Figment, given: &Given| layers.merge(Serialized::defaults(given.tree()));
        let layers = self.given.iter().fold(Figment::from(Serialized::defaults(Config::default())), merge);
        layers.extract_lossy().unwrap_or_else(|error| {
            self.mistake("the configuration", None, "all layers together", expected(error.kind));
            Config::default()
        })
    }

    /// Adds what makes no sense, except what follows from a mistake already listed.
    fn validate(&mut self, config: &Config) {
        let listed: Vec<_> = self.mistakes.iter().map(|mistake| mistake.key.clone()).collect();
        let listed = |key: &str| listed.iter().any(|listed| listed == key);
        let values = Value::serialize(config).ok();
        for finding in validate::findings(config) {
            let follows = listed(finding.key) || finding.beside.is_some_and(listed);
            if follows {
                continue;
            }
            let value = values.as_ref().and_then(|values| values.find_ref(finding.key));
            let value = value.filter(|value| !matches!(value, Value::Empty(..)));
            let value = value.map(|value| shown(finding.key, value));
            let origin =
                |key: &str| self.given.iter().rfind(|given| given.key() == key).map(|given| given.origin.clone());
            let origin =
                origin(finding.key).or_else(|| origin(finding.beside?)).unwrap_or_else(|| "the defaults".to_owned());
            self.mistake(finding.key, value, &origin, format!("expected {}", finding.expected));
        }
    }
}

/// A value as an error may show it.
fn shown(key: &str, value: &Value) -> String {
    const LONGEST: usize = 120;
    // Credentials stand before an `@` or, as parameters, after a `?`, also in a URL that got into the wrong key.
    const TELLTALES: [char; 2] = ['@', '?'];
    let text = match value {
        Value::String(_, text) if key == REDIS_URL => format!("{:?}", value::mask_url(text)),
        _ if touches_a_secret(key) => return value::MASK.to_owned(),
        Value::String(_, text) if text.contains(TELLTALES) => format!("{:?}", value::mask_url(text)),
        value => {
            let text = serde_json::to_string(value).unwrap_or_default();
            if text.contains(TELLTALES) { value::MASK.to_owned() } else { text }
        }
    };
    if text.chars().count() > LONGEST { text.chars().take(LONGEST).chain("…".chars()).collect() } else { text }
}

/// Whether a secret is at, below or above a key: a text may stand where a table should, and the other way round.
fn touches_a_secret(key: &str) -> bool {
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    SECRETS.iter().any(|secret| key == *secret || within(key, secret) || within(secret, key))
}

/// What figment would have liked, without the value, which it would show unmasked.
fn expected(kind: Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) | Kind::InvalidLength(_, expected) => {
            let expected = match expected.as_str() {
                table if table.starts_with("struct ") => "a table of keys",
                "u64" | "usize" => "a whole number, 0 or more",
                "f64" => "a number",
                "a boolean" => "true or false",
                "a string" => "a text",
                other => other,
            };
            format!("expected {expected}")
        }
        Kind::UnknownVariant(_, known) => format!("expected one of {}", known.join(", ")),
        Kind::UnknownField(_, known) => format!("there is no such key; known here: {}", known.join(", ")),
        other => other.to_string(),
    }
}

/// Why a variable that begins like ours is not.
fn not_ours(rest: &str) -> String {
    let service_link = rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.ends_with("PORT")
        || rest.contains("_PORT_");
    let hint = if service_link {
        "; this looks like a Kubernetes service link: set enableServiceLinks: false in the pod"
    } else {
        ""
    };
    format!("there is no such variable; ours are {CONFIG_FILE} and {PREFIX}SECTION__KEY, such as CHAT_REDIS__URL{hint}")
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replacen('.', "__", 1).to_uppercase())
}

#[cfg(test)]
mod tests;
