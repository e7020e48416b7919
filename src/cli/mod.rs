//! The command line: `serve` by default, and the small tools beside it.

mod check;
mod tables;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    app::App,
    auth, broadcaster, cluster,
    config::{self, Config},
    http::{asyncapi, openapi},
    metrics::Metrics,
    preflight::{self, Verdict},
    reload::Stamps,
    shutdown::Signals,
    telemetry,
};

/// Who `check` is where it mints its own token.
const CHECK_USER: &str = "chat-api-check";
/// Where it speaks.
const CHECK_ROOMS: &str = "check-*";
/// What threads that are blocked get at the end of the process.
const LAST_THREADS: Duration = Duration::from_millis(200);
/// How long that token is valid.
const CHECK_TOKEN_TTL: Duration = Duration::from_secs(60);

/// Real-time chat on Kubernetes.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Configuration file (TOML); the environment goes before it.
    #[arg(long, global = true, env = "CHAT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve,
    /// Print the configuration in force, secrets masked.
    Config,
    /// Mint a token for development, signed with `auth.secret`.
    Token {
        /// The user it speaks for.
        #[arg(long, value_name = "USER")]
        sub: String,
        /// How long it is valid.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// What it may do, such as `lobby=s, team.*=sp`; the server's defaults if not given.
        #[arg(long, value_name = "ROOMS", value_parser = rooms)]
        rooms: Option<Rooms>,
        /// Whether it may manage other users' connections.
        #[arg(long)]
        admin: bool,
    },
    /// Look at Redis, keys, rights, limits and the drain's time as this configuration has them; fails if something is bad.
    Preflight {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Print the AsyncAPI document.
    Asyncapi,
    /// Print a document with its closed tables as the code has them (for docs/protocol.md and docs/operations.md).
    #[command(hide = true)]
    Tables {
        /// A document with a pair of marks for each table.
        document: PathBuf,
    },
    /// Print the Redis function library, for a Redis whose users may not load it: `… | redis-cli -x FUNCTION LOAD REPLACE`.
    RedisFunctions,
    /// Send a message through a running service, wait for it on a second socket, and resume.
    Check {
        /// The service, such as `http://chat-api:8080`.
        #[arg(long)]
        url: String,
        /// Its management address, such as `http://chat-api-management:9090`: the metrics are read too.
        #[arg(long)]
        management: Option<String>,
        /// Where authentication is required.
        #[arg(long, env = "CHECK_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// Longest wait.
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// In a cluster: create a Secret with a random value, unless it exists.
    EnsureSecret {
        /// The Secret's name.
        #[arg(long)]
        name: String,
        /// The key in it.
        #[arg(long)]
        key: String,
    },
}

/// Rooms and letters.
type Rooms = BTreeMap<String, String>;

fn rooms(text: &str) -> Result<Rooms, &'static str> {
    config::Auth::parse_rooms(text).ok_or("rooms and letters, such as `lobby=s, team.*=sp`, each room once")
}

/// Parses the arguments and does what they ask.
pub fn main() -> anyhow::Result<ExitCode> {
    // With one provider linked this only makes the choice explicit.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let file = cli.config.clone();
    let load = || Config::load(file.as_deref(), config::environment());
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => run(serve(load()?, cli.config)),
        Command::Config => print(&load()?.effective_toml()),
        Command::Token { sub, ttl, rooms, admin } => {
            let permissions =
                (rooms.is_some() || admin).then(|| json!({ "rooms": rooms.unwrap_or_default(), "admin": admin }));
            print(&auth::mint(&load()?.auth, &sub, ttl, permissions)?)
        }
        Command::Preflight { json } => preflight(&load()?, json),
        Command::Openapi => print(&openapi::document()?),
        Command::Asyncapi => print(&asyncapi::document()?),
        Command::Tables { document } => print(&tables::fill(&std::fs::read_to_string(document)?)?),
        Command::RedisFunctions => print(&broadcaster::functions()),
        Command::Check { url, management, token, timeout } => {
            let token = match token {
                Some(token) => Some(token),
                None => check_token(&load()?.auth)?,
            };
            run(check::check(url, management, token, timeout))
        }
        Command::EnsureSecret { name, key } => run(async move {
            let outcome = cluster::ensure_secret(&name, &key).await?;
            print(&format!("secret {name}: {outcome}")).map(drop)
        }),
    }
}

/// With the service's own configuration at hand, `check` mints its token itself.
fn check_token(auth: &config::Auth) -> anyhow::Result<Option<String>> {
    if !auth.enabled {
        return Ok(None);
    }
    let token = auth::mint(
        auth,
        CHECK_USER,
        CHECK_TOKEN_TTL.min(auth.max_token_age),
        Some(json!({ "rooms": { CHECK_ROOMS: "sp" } })),
    )
    .context("give --token, or a configuration with a secret")?;
    Ok(Some(token))
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    abandon(runtime);
    done.map(|()| ExitCode::SUCCESS)
}

fn preflight(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let findings = runtime.block_on(preflight::look(config));
    abandon(runtime);
    let table = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    print(&if json { serde_json::to_string_pretty(&findings)? } else { table })?;
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Ends what is left. A look-up in DNS blocks a thread for as long as the resolver likes, which is longer than Kubernetes waits.
fn abandon(runtime: Runtime) {
    runtime.shutdown_timeout(LAST_THREADS);
}

/// A closed pipe is not worth a panic.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, file: Option<PathBuf>) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    let counters = telemetry::Counters {
        spans_dropped: metrics.spans_dropped.clone(),
        lines_suppressed: metrics.log_lines_suppressed.clone(),
    };
    let telemetry =
        telemetry::init(&config.log, &config.telemetry, &config.kubernetes, counters).context("telemetry")?;
    let mut signals = Signals::new()?;
    // Before the keys are read: what changes from here on is seen.
    let seen = Stamps::now(file.as_deref(), &config.auth);
    let (redis, durability) = (config.redis.url.is_some(), config.redis.durability.as_str());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), redis, durability, "starting");
    let outcome = async {
        let app = App::build(config, metrics, telemetry.tracing()).await.context("failed to start")?;
        app.reload(file, seen, telemetry.log_filter());
        tracing::info!(public = %app.public_addr()?, management = %app.management_addr()?, "listening");
        app.run(&mut signals).await
    };
    let outcome = outcome.await;
    // Last, as the drain's own spans and lines are worth keeping.
    telemetry.shutdown(*outcome.as_ref().unwrap_or(&Duration::MAX)).await;
    outcome.map(drop)
}
