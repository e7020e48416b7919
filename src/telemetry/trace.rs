//! Which messages are traced, and the three spans of one that is: `chat.receive`, `chat.publish`, `chat.deliver`.
//!
//! Whether a message is traced is decided before its first span is made: a span that the sampler refuses afterwards costs as much as one
//! that it keeps. Without export, everything here is a branch. Spans leave through `otlp`; W3C trace context only.

use std::{fmt, str::FromStr};

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use tracing::{Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{
    config::{Sampler, Telemetry},
    protocol::{ClientId, MessageId, RoomName},
};

/// The target of every span that is exported, and of nothing else.
pub(super) const TARGET: &str = "chat_api::message";

/// The longest `traceparent` of version 00, and the beginning of one of any later version.
const TRACEPARENT_LEN: usize = 55;

/// A position in somebody's trace: a W3C `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

/// A text that is no W3C `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent is 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case, ids not all zero")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// Whether whoever is there keeps the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    fn remote(&self) -> Context {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, span) = (TraceId::from_bytes(self.trace), SpanId::from_bytes(self.span));
        Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::NONE))
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let bytes = text.as_bytes();
        let (head, tail) = bytes.split_at_checked(TRACEPARENT_LEN).ok_or(InvalidTraceparent)?;
        let mut parts = head.split(|byte| *byte == b'-');
        let mut part = || parts.next().ok_or(InvalidTraceparent);
        let ([version], trace, span, [flags]) = (hex(part()?)?, hex(part()?)?, hex(part()?)?, hex(part()?)?);
        // A later version may say more; what we know stays where it is.
        let fits = match version {
            0x00 => tail.is_empty(),
            0xff => false,
            _ => tail.is_empty() || tail.starts_with(b"-"),
        };
        let valid = fits && parts.next().is_none() && trace != [0; 16] && span != [0; 8];
        if valid { Ok(Self { trace, span, sampled: flags & 1 == 1 }) } else { Err(InvalidTraceparent) }
    }
}

/// Exactly `N` bytes in lower case hex.
fn hex<const N: usize>(digits: &[u8]) -> Result<[u8; N], InvalidTraceparent> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidTraceparent),
    };
    let mut bytes = [0; N];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(InvalidTraceparent);
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Ok(bytes)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

/// Decides which messages are traced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracing(Rule);

#[derive(Debug, Clone)]
enum Rule {
    Never,
    Always,
    /// This share, by trace id where there is one.
    Share(f64),
    /// As the parent does; without one, as `roots`, a share.
    AsParent {
        roots: f64,
    },
}

impl Tracing {
    /// Nothing is traced.
    #[must_use]
    pub fn off() -> Self {
        Self(Rule::Never)
    }

    /// As configured; off without an endpoint.
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        if telemetry.endpoint.is_none() && telemetry.traces_endpoint.is_none() {
            return Self::off();
        }
        Self(match telemetry.sampler {
            Sampler::AlwaysOn => Rule::Always,
            Sampler::AlwaysOff => Rule::Never,
            Sampler::TraceIdRatio => Rule::Share(telemetry.sampler_arg),
            Sampler::ParentBasedAlwaysOn => Rule::AsParent { roots: 1.0 },
            Sampler::ParentBasedAlwaysOff => Rule::AsParent { roots: 0.0 },
            Sampler::ParentBasedTraceIdRatio => Rule::AsParent { roots: telemetry.sampler_arg },
        })
    }

    /// Whether any message can be traced.
    pub(super) fn is_on(&self) -> bool {
        !matches!(self.0, Rule::Never)
    }

    /// Whether a message with this parent is to be traced.
    fn samples(&self, parent: Option<&TraceContext>) -> bool {
        match (&self.0, parent) {
            (Rule::Never, _) => false,
            (Rule::Always, _) => true,
            (Rule::AsParent { .. }, Some(parent)) => parent.sampled,
            (Rule::Share(share), Some(parent)) => falls_into(*share, parent),
            (Rule::Share(share) | Rule::AsParent { roots: share }, None) => fastrand::f64() < *share,
        }
    }

    /// A message came in from a client, perhaps with that client's trace context: everything that happens to it here happens inside this span.
    /// None if it is not traced.
    #[must_use]
    pub fn receive(&self, parent: Option<&TraceContext>, room: &RoomName, client: ClientId) -> Span {
        if !self.samples(parent) {
            return Span::none();
        }
        let span = info_span!(
            target: TARGET,
            parent: None,
            "chat.receive",
            "otel.kind" = "server",
            "otel.status_code" = field::Empty,
            "error.type" = field::Empty,
            "messaging.system" = "chat-api",
            "messaging.operation.name" = "receive",
            "messaging.operation.type" = "receive",
            "messaging.destination.name" = room.as_str(),
            "messaging.client.id" = %client,
        );
        if let Some(parent) = parent {
            continue_from(&span, parent);
        }
        span
    }
}

/// The same answer for one trace wherever it is asked, as OpenTelemetry's ratio sampler has it.
fn falls_into(share: f64, parent: &TraceContext) -> bool {
    let [.., a, b, c, d, e, f, g, h] = parent.trace;
    let value = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    share >= 1.0 || value < (share * (1_u64 << 63) as f64) as u64
}

/// The message, whose payload has so many bytes, goes to its room's log, which `system` keeps. No span unless `parent` is one of ours.
#[must_use]
pub fn publish(parent: &Span, room: &RoomName, bytes: usize, system: &'static str) -> Span {
    if parent.metadata().is_none_or(|metadata| metadata.target() != TARGET) {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        parent: parent,
        "chat.publish",
        "otel.kind" = "producer",
        "otel.status_code" = field::Empty,
        "error.type" = field::Empty,
        "messaging.system" = system,
        "messaging.operation.name" = "publish",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = room.as_str(),
        "messaging.message.body.size" = bytes,
        "messaging.message.id" = field::Empty,
    )
}

/// A publication of a traced message goes to this node's members. No span if its publisher does not keep the trace: it is the publisher
/// who decides, so that a trace is whole or not there.
#[must_use]
pub fn deliver(publisher: &TraceContext, room: &RoomName, id: Option<MessageId>) -> Span {
    if !publisher.sampled {
        return Span::none();
    }
    let span = info_span!(
        target: TARGET,
        parent: None,
        "chat.deliver",
        "otel.kind" = "consumer",
        "messaging.system" = "chat-api",
        "messaging.operation.name" = "deliver",
        "messaging.operation.type" = "process",
        "messaging.destination.name" = room.as_str(),
        "messaging.message.id" = id.map(field::display),
        "chat.members" = field::Empty,
    );
    continue_from(&span, publisher);
    span
}

/// The log has the message: adds its position to its `chat.publish` span.
pub fn published(span: &Span, id: MessageId) {
    span.record("messaging.message.id", field::display(id));
}

/// So many members have the message: adds it to its `chat.deliver` span.
pub fn delivered(span: &Span, members: usize) {
    span.record("chat.members", members);
}

/// Runs `work` so that the lines it logs carry the ids of a trace that is kept, away from the spans themselves.
pub fn within<T>(context: Option<&TraceContext>, work: impl FnOnce() -> T) -> T {
    let _attached = context.filter(|context| context.sampled).map(|context| context.remote().attach());
    work()
}

/// What the span stands for failed. `reason` is one word from a closed set.
pub fn failed(span: &Span, reason: &'static str) {
    span.record("otel.status_code", "ERROR").record("error.type", reason);
}

/// Where a span is in its trace, to be carried to where the trace goes on; nothing for one that is not traced.
#[must_use]
pub fn context_of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    (context.is_valid() && context.is_sampled()).then_some(TraceContext { trace, span, sampled: true })
}

fn continue_from(span: &Span, parent: &TraceContext) {
    if span.is_disabled() {
        return;
    }
    // Fails only where nothing is exported: then the parent does not matter.
    let _ = span.set_parent(parent.remote());
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::Strategy as _, sample::select};

    use super::*;
    use crate::fuzz::{fuzz, mutated};

    fn parent(trace_end: &str, flags: &str) -> TraceContext {
        format!("00-4bf92f3577b34da6{trace_end}-00f067aa0ba902b7-{flags}").parse().unwrap()
    }

    fn tracing(sampler: Sampler, sampler_arg: f64) -> Tracing {
        Tracing::new(&Telemetry {
            endpoint: Some("http://collector".to_owned()),
            sampler,
            sampler_arg,
            ..Telemetry::default()
        })
    }

    #[test]
    fn a_traceparent_is_taken_and_written_as_it_was() {
        for text in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000001-0000000000000001-00",
        ] {
            assert_eq!(text.parse::<TraceContext>().map(|context| context.to_string()).as_deref(), Ok(text));
        }
        let other_flags = parent("a3ce929d0e0e4736", "03");
        assert!(other_flags.is_sampled() && !parent("a3ce929d0e0e4736", "02").is_sampled());
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert_eq!(later.parse(), Ok(parent("a3ce929d0e0e4736", "01")));
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let bad = [
            String::new(),
            "00".to_owned(),
            good.to_uppercase(),
            format!("{good}-"),
            format!("{good} "),
            format!(" {good}"),
            good.replacen("00", "ff", 1),
            format!("{}x", good.replacen("00", "01", 1)),
            good.replace('-', "_"),
            good.replace("4bf9", "4bg9"),
            good.replace("4bf9", "4b-9"),
            good.replace("4bf9", "ä9f"),
            good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace("-01", "-é"),
        ];
        for text in bad {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceparent), "{text:?}");
        }
    }

    #[test]
    fn samplers_decide_as_opentelemetrys_do() {
        use Sampler::{
            AlwaysOff, AlwaysOn, ParentBasedAlwaysOff, ParentBasedAlwaysOn, ParentBasedTraceIdRatio, TraceIdRatio,
        };
        // Half of all trace ids are below 8…, counted without the highest bit: below 7fff… >> 1.
        let (low, high) = ("0ce929d0e0e47360", "7ce929d0e0e47360");
        let table = [
            // sampler, arg, no parent, low kept, low not kept, high kept, high not kept
            (AlwaysOn, 0.0, true, true, true, true, true),
            (AlwaysOff, 1.0, false, false, false, false, false),
            (TraceIdRatio, 0.0, false, false, false, false, false),
            (TraceIdRatio, 1.0, true, true, true, true, true),
            (ParentBasedAlwaysOn, 0.0, true, true, false, true, false),
            (ParentBasedAlwaysOff, 1.0, false, true, false, true, false),
            (ParentBasedTraceIdRatio, 0.0, false, true, false, true, false),
            (ParentBasedTraceIdRatio, 1.0, true, true, false, true, false),
        ];
        for (sampler, arg, root, low_kept, low_not, high_kept, high_not) in table {
            let tracing = tracing(sampler, arg);
            let with = |id, flags| tracing.samples(Some(&parent(id, flags)));
            let decided = [tracing.samples(None), with(low, "01"), with(low, "00"), with(high, "01"), with(high, "00")];
            assert_eq!(decided, [root, low_kept, low_not, high_kept, high_not], "{sampler:?} {arg}");
        }
        let quarter = tracing(TraceIdRatio, 0.25);
        assert!(quarter.samples(Some(&parent(low, "00"))) && !quarter.samples(Some(&parent(high, "01"))));
    }

    #[test]
    fn a_share_of_the_roots_is_a_share() {
        let tracing = tracing(Sampler::ParentBasedTraceIdRatio, 0.25);
        let kept = (0..10_000).filter(|_| tracing.samples(None)).count();
        assert!((2000..3000).contains(&kept), "{kept}");
    }

    #[test]
    fn fuzz_traceparent() {
        let good = [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more",
        ];
        let texts = mutated(select(good.to_vec()).prop_map(|text| text.as_bytes().to_vec()));
        fuzz(file!(), texts, |bytes| {
            let text = String::from_utf8_lossy(&bytes);
            let Ok(context) = text.parse::<TraceContext>() else { return };
            assert_eq!(context.to_string().parse(), Ok(context.clone()));
            assert_eq!(context.to_string()[2..53], text[2..53], "the ids are kept");
        });
    }
}
