//! `[telemetry]`: where traces go, and which.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value;

/// `[telemetry]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The collector's base URL (over HTTP, `/v1/traces` is appended); unset, like the next: no traces are exported.
    #[serde(deserialize_with = "value::optional")]
    pub endpoint: Option<String>,
    /// The URL for traces, used as it is; beats `endpoint`.
    #[serde(deserialize_with = "value::optional")]
    pub traces_endpoint: Option<String>,
    /// What the collector speaks.
    pub protocol: OtlpProtocol,
    /// `service.name` of this service; unset: that of `OTEL_RESOURCE_ATTRIBUTES`, or `chat-api`.
    #[serde(deserialize_with = "value::optional")]
    pub service_name: Option<String>,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// The share that the `traceidratio` samplers keep, 0 to 1.
    pub sampler_arg: f64,
    /// The longest one export may take.
    #[serde(with = "value::duration")]
    pub timeout: Duration,
    /// Finished spans that may wait for an export; more are dropped and counted.
    pub queue: usize,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            protocol: OtlpProtocol::HttpProtobuf,
            service_name: None,
            sampler: Sampler::ParentBasedAlwaysOn,
            sampler_arg: 1.0,
            timeout: Duration::from_secs(10),
            queue: 2048, // OpenTelemetry's default
        }
    }
}

impl Telemetry {
    /// Where traces go, ready for the exporter; `None`: nowhere.
    #[must_use]
    pub fn traces_url(&self) -> Option<String> {
        let from_base = |base: &String| match self.protocol {
            OtlpProtocol::Grpc => base.clone(),
            OtlpProtocol::HttpProtobuf => format!("{}/v1/traces", base.trim_end_matches('/')),
        };
        self.traces_endpoint.clone().or_else(|| self.endpoint.as_ref().map(from_base))
    }
}

/// What the collector speaks, under OpenTelemetry's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// `grpc`
    #[serde(rename = "grpc")]
    Grpc,
    /// `http/protobuf`
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Which traces are kept, under OpenTelemetry's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// All.
    #[serde(rename = "always_on")]
    AlwaysOn,
    /// None.
    #[serde(rename = "always_off")]
    AlwaysOff,
    /// A share of all.
    TraceIdRatio,
    /// As the caller decided; all of those that begin here.
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the caller decided; none of those that begin here.
    #[serde(rename = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// As the caller decided; a share of those that begin here.
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}
