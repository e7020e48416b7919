//! stub
pub mod trace;
use crate::config;
/// stub
pub struct Telemetry;
/// stub
pub fn init(log: &config::Log, _: &config::Telemetry, _: &config::Kubernetes) -> anyhow::Result<Telemetry> {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match log.format {
        config::LogFormat::Text => builder.init(),
        config::LogFormat::Json => builder.json().init(),
    }
    Ok(Telemetry)
}
impl Telemetry {
    /// stub
    pub fn tracing(&self) -> trace::Tracing {
        trace::Tracing
    }
    /// stub
    pub async fn shutdown(self) {}
}
