//! The layers, with the environment handed in.

use std::{collections::BTreeMap, io::Write as _};

use super::super::{Config, ConfigErrors, LogFormat, OtlpProtocol, Sampler};

fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut file = tempfile::Builder::new().prefix("chat").suffix(".toml").tempfile().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    Config::load(Some(file.path()), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn good(toml: &str, env: &[(&str, &str)]) -> Config {
    load(toml, env).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The mistakes' lines, by key.
fn bad(toml: &str, env: &[(&str, &str)]) -> BTreeMap<String, String> {
    let errors = load(toml, env).unwrap_err();
    errors.mistakes().iter().map(|mistake| (mistake.key.clone(), mistake.to_string())).collect()
}

fn only(toml: &str, env: &[(&str, &str)]) -> String {
    let mistakes = bad(toml, env);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes.into_values().next().unwrap()
}

#[test]
fn defaults_are_valid_and_print_as_they_are_read() {
    let defaults = Config::load(None, []).unwrap();
    let text = defaults.effective_toml();
    assert!(text.contains("heartbeat = \"25s\"") && text.contains("message_bytes = \"32KiB\""), "{text}");
    assert!(text.contains("tls_key_file, url\n") && text.contains("protocol = \"http/protobuf\""), "{text}");
    assert_eq!(good(&text, &[]).effective_toml(), text);
    let gap = good("[auth]\npublic_key = \"A\\n\\nB\"", &[]);
    assert_eq!(good(&gap.effective_toml(), &[]).auth.public_key.as_deref(), Some("A\n\nB"));
    assert_eq!(defaults.drain.total().as_secs(), 50);
    assert!((1..=50_000).contains(&defaults.limits.max_connections()));
}

#[test]
fn the_environment_beats_the_file_and_the_file_the_defaults() {
    let file = "[redis]\nprefix = \"file\"\npublishers = 2\n[limits]\nheartbeat = \"1s\"\nconnections = 7\n[log]\nformat = \"json\"";
    let config =
        good(file, &[("CHAT_REDIS__PREFIX", "0123"), ("CHAT_LIMITS__MESSAGE_BYTES", "1024"), ("CHAT_LOG__FILTER", "")]);
    assert_eq!((config.redis.prefix.as_str(), config.redis.publishers), ("0123", 2));
    assert_eq!((config.limits.message_bytes, config.limits.outbox_bytes), (1024, 256 << 10));
    assert_eq!((config.limits.heartbeat.as_millis(), config.limits.max_connections()), (1000, 7));
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Json, "info"));
}

#[test]
fn the_file_may_be_named_by_the_environment_and_must_be_there() {
    let env = |path: &str| [("CHAT_CONFIG".to_owned(), path.to_owned())];
    let error = Config::load(None, env("no/such.toml")).unwrap_err().to_string();
    assert!(error.contains("no/such.toml") && error.contains("cannot be read"), "{error}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[redis]\nprefix = \"x\"").unwrap();
    let config = Config::load(None, env(file.path().to_str().unwrap())).unwrap();
    assert_eq!(config.redis.prefix, "x");
}

#[test]
fn a_file_that_is_no_toml_is_located_without_being_quoted() {
    let line = only("[redis]\nprefix = \"x\"\nurl = \"redis://:hunter2@h\n", &[]);
    assert!(line.contains("line 3") && line.contains("is not TOML") && !line.contains("hunter2"), "{line}");
}

#[test]
fn platform_names_are_taken() {
    let env = [
        ("PORT", "8081"),
        ("MANAGEMENT_PORT", "9191"),
        ("REDIS_URL", "redis://:hunter2@redis:6379/1"),
        ("CHAT_SERVER__ORIGINS", "https://a.example, http://b.example:81"),
    ];
    let config = good("[server]\naddress = \"127.0.0.1:1\"", &env);
    assert_eq!(config.server.address.to_string(), "127.0.0.1:8081");
    assert_eq!(config.server.management_address.to_string(), "[::]:9191");
    assert_eq!(config.redis.url.as_ref().unwrap().expose(), "redis://:hunter2@redis:6379/1");
    assert_eq!(config.server.origins, ["https://a.example", "http://b.example:81"]);
    let shown = config.effective_toml() + &format!("{config:?}");
    assert!(shown.contains("redis://:***@redis:6379/1") && !shown.contains("hunter2"), "{shown}");
    assert!(good("[redis]\nurl = \"redis://h\"", &[("REDIS_URL", "")]).redis.url.is_none());
    for (text, enabled) in [("TRUE", true), ("1", true), ("False", false), ("0", false), ("", false)] {
        let env = [("AUTH_ENABLED", text), ("CHAT_AUTH__SECRET", "0123456789abcdef0123456789abcdef")];
        assert_eq!(good("", &env).auth.enabled, enabled, "{text}");
    }
    let line = only("", &[("AUTH_ENABLED", "maybe")]);
    assert!(line.contains("auth.enabled = \"maybe\" (from AUTH_ENABLED): expected true, false, 1 or 0"), "{line}");
}

#[test]
fn two_names_for_one_key_must_agree() {
    let pairs = [
        [("REDIS_URL", "redis://a:hunter2@x"), ("CHAT_REDIS__URL", "redis://b")],
        [("PORT", "1"), ("CHAT_SERVER__ADDRESS", "0.0.0.0:2")],
        [("AUTH_ENABLED", "0"), ("CHAT_AUTH__ENABLED", "true")],
        [("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"), ("CHAT_TELEMETRY__TIMEOUT", "2s")],
    ];
    for pair in pairs {
        let env = [pair[0], pair[1], ("CHAT_AUTH__SECRET", "0123456789abcdef0123456789abcdef")];
        let line = only("", &env);
        assert!(line.contains(pair[0].0) && line.contains(pair[1].0) && !line.contains("hunter2"), "{line}");
    }
    let same =
        [("PORT", "2"), ("CHAT_SERVER__ADDRESS", "0.0.0.0:2"), ("AUTH_ENABLED", "0"), ("CHAT_AUTH__ENABLED", "FALSE")];
    assert_eq!(good("", &same).server.address.port(), 2);
}

#[test]
fn opentelemetry_names_mean_what_opentelemetry_says() {
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/own");
    let url = |env: &[(&str, &str)]| good("", env).telemetry.traces_url();
    assert_eq!(url(&[]), None);
    assert_eq!(url(&[base]).as_deref(), Some("http://collector:4318/v1/traces"));
    assert_eq!(url(&[base, traces]).as_deref(), Some("http://traces:1/own"));
    assert_eq!(url(&[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).as_deref(), Some("http://collector:4318/"));
    assert_eq!(url(&[base, ("OTEL_SDK_DISABLED", "True")]), None);
    assert_eq!(url(&[traces, ("OTEL_TRACES_EXPORTER", "none")]), None);
    let env = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_SERVICE_NAME", "42"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "77"),
        ("OTEL_BSP_SCHEDULE_DELAY", "nobody's business"),
    ];
    let telemetry = good("", &env).telemetry;
    assert_eq!((telemetry.sampler, telemetry.sampler_arg), (Sampler::ParentBasedTraceIdRatio, 0.25));
    assert_eq!((telemetry.service_name.as_deref(), telemetry.timeout.as_millis()), (Some("42"), 1500));
    assert_eq!((telemetry.queue, good("", &[("OTEL_SERVICE_NAME", "")]).telemetry.service_name), (77, None));
    assert_eq!(telemetry.protocol, OtlpProtocol::Grpc);
    let empty = ["OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_BSP_MAX_QUEUE_SIZE"].map(|name| (name, ""));
    assert_eq!(good("", &empty).telemetry.sampler, Sampler::ParentBasedAlwaysOn, "empty is not set");
    assert_eq!(url(&[base, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", " ")]), url(&[base]));
    let line = only("", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
    assert!(line.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && line.contains("grpc, http/protobuf"), "{line}");
}

#[test]
fn every_mistake_is_listed_at_once() {
    let file = "top = 1\n[limits]\nheartbeat = 5\noutbox_bytes = \"1KiB\"\ntypo = 1\n[history]\nmessages = -1\n[nonsense]\n[log]\nfilter = \"chat=loud\"";
    let env = [
        ("CHAT_SERVER__ADDRESS", "localhost"),
        ("CHAT_SERVER__ORIGINS", "https://fine.example,*"),
        ("CHAT_LIMITS__MESSAGE_BYTES", "1 potato"),
        ("CHAT_REDIS__PREFIX", "a{b}"),
        ("CHAT_REDIS__TIMEOUT", "0s"),
        ("CHAT_LOG__FORMAT", "yaml"),
        ("CHAT_API_PORT", "tcp://10.0.0.1:80"),
        ("CHAT_AUTH__SECRETS", "hunter2"),
        ("REDIS_URL", "http://bob:hunter2@redis"),
        ("AUTH_ENABLED", "true"),
        ("MANAGEMENT_PORT", "99999"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("CHAT_KUBERNETES__ENABLED", "true"),
    ];
    let lines = bad(file, &env);
    let expected = [
        ("top", "there is no such key; known here: server, auth"),
        ("limits.heartbeat", "limits.heartbeat = 5 (from"),
        ("limits.typo", "known here: message_bytes"),
        ("history.messages", "expected a whole number"),
        ("nonsense", "there is no such key"),
        ("log.filter", "log.filter = \"chat=loud\""),
        (
            "server.address",
            "server.address = \"localhost\" (from CHAT_SERVER__ADDRESS): expected an IP address and port",
        ),
        ("server.origins", "\"*\" to be an origin"),
        ("limits.message_bytes", "= \"1 potato\" (from CHAT_LIMITS__MESSAGE_BYTES): expected a size such as 32KiB"),
        ("redis.prefix", "expected 1 to 64 of"),
        ("redis.timeout", "above zero"),
        ("log.format", "expected one of text, json"),
        ("CHAT_API_PORT", "enableServiceLinks"),
        ("auth.secrets", "known here: enabled, secret"),
        ("redis.url", "redis.url = \"http://bob:***@redis\" (from REDIS_URL)"),
        ("auth.secret", "(from AUTH_ENABLED): expected one of auth.secret, auth.secret_file"),
        ("server.management_address", "(from MANAGEMENT_PORT): expected a port"),
        ("telemetry.sampler_arg", "= 1.5 (from OTEL_TRACES_SAMPLER_ARG): expected a share"),
        ("kubernetes.namespace", "downward API"),
        ("kubernetes.pod_name", "downward API"),
    ];
    for (key, text) in expected {
        let line = lines.get(key).unwrap_or_else(|| panic!("{key} is not listed: {lines:#?}"));
        assert!(line.contains(text), "{line}");
        assert!(!line.contains("hunter2") && !line.contains('\n'), "{line}");
    }
    // outbox_bytes is measured by message_bytes, which is not known here
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
}

#[test]
fn values_must_make_sense_together() {
    for (name, value, key) in [
        ("CHAT_LIMITS__MESSAGE_BYTES", "255", "limits.message_bytes"),
        ("CHAT_LIMITS__OUTBOX_BYTES", "68KiB", ""),
        ("CHAT_LIMITS__OUTBOX_BYTES", "67KiB", "limits.outbox_bytes"),
        ("CHAT_LIMITS__HEARTBEAT", "199ms", "limits.heartbeat"),
        ("CHAT_LIMITS__CONNECTIONS", "0", "limits.connections"),
        ("CHAT_HISTORY__MESSAGES", "0", "history.messages"),
        ("CHAT_REDIS__PUBLISHERS", "0", "redis.publishers"),
        ("CHAT_REDIS__REQUIRED", "true", "redis.url"),
        ("CHAT_SERVER__MANAGEMENT_ADDRESS", "127.0.0.1:8080", "server.management_address"),
        ("CHAT_SERVER__ORIGINS", "https://a.example:443", "server.origins"),
        ("CHAT_SERVER__ORIGINS", "https://a.example/", "server.origins"),
        ("CHAT_SERVER__ORIGINS", "https://A.example", "server.origins"),
        ("CHAT_SERVER__ORIGINS", "https://a:b@c", "server.origins"),
        ("CHAT_SERVER__ORIGINS", "a.example", "server.origins"),
        ("CHAT_SERVER__ORIGINS", "http://[::1]:3000,http://[::1],http://localhost:3000", ""),
        ("CHAT_TELEMETRY__ENDPOINT", "collector:4317", "telemetry.endpoint"),
        ("CHAT_TELEMETRY__ENDPOINT", "http://u:p@collector:4317", "telemetry.endpoint"),
        ("CHAT_TELEMETRY__SAMPLER_ARG", "NaN", "telemetry.sampler_arg"),
        ("CHAT_REDIS__URL", "localhost:6379", "redis.url"),
        ("CHAT_REDIS__URL", "redis://", "redis.url"),
        ("CHAT_REDIS__URL", "redis://:$(REDIS_PASSWORD)@redis", "redis.url"),
        ("CHAT_REDIS__URL", "redis://redis/none", "redis.url"),
        ("CHAT_REDIS__URL", "rediss://redis:6380", ""),
        ("CHAT_REDIS__URL", "unix:///run/redis.sock", ""),
        ("CHAT_REDIS__SENTINELS", "sentinel:26379", "redis.url"),
        ("CHAT_REDIS__SENTINEL_PASSWORD", "hunter2", "redis.sentinel_password"),
        ("CHAT_REDIS__TLS_CA_FILE", "/ca.crt", "redis.tls_ca_file"),
        ("CHAT_REDIS__DURABILITY", "fsync", "redis.durability"),
        ("CHAT_CONFIGS", "x", "CHAT_CONFIGS"),
        ("CHAT_AUTH__MAX_TOKEN_AGE", "0s", "auth.max_token_age"),
        ("CHAT_AUTH__JWKS_MAX_AGE", "999ms", "auth.jwks_max_age"),
        ("CHAT_AUTH__CLAIM", "sub", "auth.claim"),
        ("CHAT_AUTH__CLAIM", "https://example.com/chat", ""),
        ("CHAT_AUTH__DEFAULT_ROOMS", "*", "auth.default_rooms"),
        ("CHAT_AUTH__DEFAULT_ROOMS", "*=rw", "auth.default_rooms"),
        ("CHAT_AUTH__DEFAULT_ROOMS", "*.a=s", "auth.default_rooms"),
        ("CHAT_AUTH__DEFAULT_ROOMS", "u.{user}=s", "auth.default_rooms"),
        ("CHAT_AUTH__DEFAULT_ROOMS", "u.{sub}=s, *=", ""),
        ("CHAT_AUTH__JWKS_URL", "http://issuer.example/keys", "auth.jwks_url"),
        ("CHAT_AUTH__JWKS_URL", "https://bob:hunter2@issuer.example/keys", "auth.jwks_url"),
        ("CHAT_AUTH__JWKS_URL", "issuer.example", "auth.jwks_url"),
        ("CHAT_AUTH__JWKS_URL", "https://", "auth.jwks_url"),
        ("CHAT_AUTH__JWKS_URL", "https://issuer.example/keys?p=1", ""),
        ("CHAT_AUTH__JWKS_URL", "http://[::1]:1/keys", ""),
    ] {
        let found = load("", &[(name, value)]).err().map(|errors| errors.mistakes()[0].key.clone()).unwrap_or_default();
        assert_eq!(found, key, "{name}={value}");
    }
}

#[test]
fn sentinels_need_the_name_of_a_set() {
    let with = |url, sentinels| [("REDIS_URL", url), ("CHAT_REDIS__SENTINELS", sentinels)];
    let config = good("", &with("redis://:hunter2@my_Set/1", "a:26379, [::1]:26379"));
    assert_eq!(config.redis.sentinels, ["a:26379", "[::1]:26379"]);
    for url in ["redis://:hunter2@set:6379", "unix:///run/redis.sock"] {
        let line = only("", &with(url, "a:1"));
        assert!(line.contains("the name of the master's set") && !line.contains("hunter2"), "{line}");
    }
    assert!(only("", &with("http://redis", "a:1")).contains("begin with one of these"));
    assert!(only("", &with("redis://set", "a:1,b")).contains("\"b\" to be host:port"));
    let secret = "[redis]\nurl = \"redis://set\"\nsentinels = [\"a:1\"]\nsentinel_password = \"hunter2\"";
    let shown = good(secret, &[]).effective_toml();
    assert!(shown.contains("sentinel_password = \"***\"") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn tls_files_must_fit_together() {
    let certified = || rcgen::generate_simple_self_signed(["redis".to_owned()]).unwrap();
    let (ours, other) = (certified(), certified());
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("crt", &ours.cert.pem());
    let (key, other) =
        (file("key", &ours.signing_key.serialize_pem()), file("other", &other.signing_key.serialize_pem()));
    let (empty, missing) = (file("empty", "no PEM"), "no/such/file".to_owned());
    let ca = |path| ("CHAT_REDIS__TLS_CA_FILE", path);
    let own = |path| ("CHAT_REDIS__TLS_CERT_FILE", path);
    let its_key = |path| ("CHAT_REDIS__TLS_KEY_FILE", path);
    let cases: [(&[(&str, &String)], &str); 6] = [
        (
            &[ca(&missing)],
            "redis.tls_ca_file = \"no/such/file\" (from CHAT_REDIS__TLS_CA_FILE): expected a file that can be read",
        ),
        (&[ca(&empty)], "expected certificates in PEM form: there is none in it"),
        (&[own(&certificate)], "expected the key of redis.tls_cert_file"),
        (&[its_key(&key)], "expected the certificate of redis.tls_key_file"),
        (&[own(&certificate), its_key(&other)], "expected the private key of redis.tls_cert_file in PEM form: keys"),
        (&[own(&certificate), its_key(&empty)], "expected the private key of redis.tls_cert_file in PEM form"),
    ];
    let with = |files: &[(&'static str, &String)]| {
        let url = ("REDIS_URL".to_owned(), "rediss://redis".to_owned());
        let files = files.iter().map(|(name, path)| ((*name).to_owned(), (*path).clone()));
        Config::load(None, files.chain([url]))
    };
    for (files, text) in cases {
        let errors = with(files).unwrap_err().to_string();
        assert!(errors.contains(text) && errors.lines().count() == 2, "{text}: {errors}");
    }
    with(&[ca(&certificate), own(&certificate), its_key(&key)]).unwrap();
}

#[test]
fn auth_needs_one_usable_key() {
    let missing = [("AUTH_ENABLED", "true"), ("CHAT_AUTH__SECRET_FILE", "no/such/file")];
    let short = [("AUTH_ENABLED", "true"), ("CHAT_AUTH__SECRET", "hunter2")];
    let two = [("AUTH_ENABLED", "true"), ("CHAT_AUTH__SECRET", "hunter2"), ("CHAT_AUTH__PUBLIC_KEY", "hunter2")];
    let pem = [("AUTH_ENABLED", "true"), ("CHAT_AUTH__PUBLIC_KEY", "hunter2")];
    let cases: [(&[_], &str); 4] = [
        (&missing, "a file that can be read"),
        (&short, "at least 32 bytes, not 7"),
        (&two, "one key only, but auth.secret and auth.public_key are set"),
        (&pem, "a public key in PEM form"),
    ];
    for (env, text) in cases {
        let line = only("", env);
        assert!(line.contains(text) && !line.contains("hunter2"), "{line}");
    }
}

#[test]
fn the_keys_of_an_issuer_need_to_know_whom_they_are_for() {
    let url = [("AUTH_ENABLED", "true"), ("CHAT_AUTH__JWKS_URL", "https://issuer.example/keys")];
    let lines = bad("", &url);
    assert_eq!(lines.keys().collect::<Vec<_>>(), ["auth.audience", "auth.issuer"], "{lines:#?}");
    let whole =
        [&url[..], &[("CHAT_AUTH__ISSUER", "https://issuer.example"), ("CHAT_AUTH__AUDIENCE", "chat")]].concat();
    assert!(good("", &whole).auth.jwks_url.is_some());
    let both = [&whole[..], &[("CHAT_AUTH__JWKS_FILE", "keys.json")]].concat();
    assert!(only("", &both).contains("one key only, but auth.jwks_file and auth.jwks_url are set"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{"keys":[{"kty":"oct","k":"aHVudGVyMg"}]}"#).unwrap();
    let line = only("", &[("AUTH_ENABLED", "true"), ("CHAT_AUTH__JWKS_FILE", file.path().to_str().unwrap())]);
    assert!(line.contains("a JSON Web Key Set") && line.contains("none of its keys can be used"), "{line}");
}

#[test]
fn rooms_replace_those_of_the_layer_below() {
    let rooms = |toml: &str, env: &[(&str, &str)]| good(toml, env).auth.default_rooms.into_iter().collect::<Vec<_>>();
    let pair = |room: &str, letters: &str| (room.to_owned(), letters.to_owned());
    let table = "[auth.default_rooms]\n\"board.*\" = \"s\"\nlobby = \"\"";
    assert_eq!(rooms("", &[]), [pair("*", "spw")]);
    assert_eq!(rooms(table, &[]), [pair("board.*", "s"), pair("lobby", "")]);
    assert_eq!(rooms("[auth]\ndefault_rooms = { \"*\" = \"p\" }", &[]), [pair("*", "p")]);
    assert_eq!(rooms("[auth]\ndefault_rooms = {}", &[]), []);
    assert_eq!(rooms(table, &[("CHAT_AUTH__DEFAULT_ROOMS", "lobby=s, x=sp")]), [pair("lobby", "s"), pair("x", "sp")]);
    assert!(good(table, &[]).effective_toml().contains("default_rooms = \"board.*=s, lobby=\""));
    assert!(only("[auth.default_rooms]\nlobby = 1", &[]).contains("auth.default_rooms"));
}

#[test]
fn toml_keys_with_dots_in_quotes_are_no_way_around() {
    assert!(only("\"redis.prefix\" = \"x\"", &[]).contains("there is no such key"));
    assert!(only("redis = \"x\"", &[]).contains("a table of keys"));
}

#[test]
fn no_misplaced_secret_is_shown() {
    let pem = "-----BEGIN PRIVATE KEY-----\\nhunter2\\n-----END PRIVATE KEY-----";
    for toml in [
        "auth = \"hunter2\"",
        "[auth.secret]\nvalue = \"hunter2\"",
        "[auth]\nsecret = [\"hunter2\"]",
        "[redis]\nurl = [\"redis://:hunter2@h\"]",
        "[redis.url]\npassword = \"hunter2\"",
        "[redis]\nprefix = \"redis://:hunter2@h\"",
        "redis = \"redis://:hunter2@h\"",
        "[server]\norigins = [\"https://a:hunter2@h\"]",
        "[telemetry]\nendpoint = \"https://collector/?key=hunter2\"",
        &format!("[auth]\npublic_key = \"{pem}\""),
        "[log]\n\"a\\nb\" = 1",
    ] {
        let errors = load(toml, &[]).expect_err(toml);
        let text = errors.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.lines().count(), 1 + errors.mistakes().len(), "{text}");
    }
}
