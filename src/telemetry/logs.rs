//! How a log line is written: text or JSON, with the ids of the trace that it belongs to.
//!
//! Owns nothing of what is logged; the filter is the subscriber's.

use std::{fmt, io::IsTerminal as _};

use opentelemetry::{Context, trace::TraceContextExt as _};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{DefaultFields, Format, JsonFields, Writer},
    },
    registry::LookupSpan,
};

use crate::config::LogFormat;

/// Whether standard output may be coloured.
pub(super) fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes events to `writer`; one that cannot be written is gone, silently.
pub(super) fn layer<S, W>(format: LogFormat, ansi: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // By default an error would be written to standard error, and a closed one panics.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(writer);
    match format {
        LogFormat::Text => {
            let format = WithTrace { inner: Format::default().with_ansi(ansi), end: "\n", write: write_text };
            layer.fmt_fields(DefaultFields::new()).event_format(format).boxed()
        }
        LogFormat::Json => {
            let json = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
            let format = WithTrace { inner: json, end: "}\n", write: write_json };
            layer.fmt_fields(JsonFields::new()).event_format(format).boxed()
        }
    }
}

/// A format whose lines end with the ids of the trace that they belong to, if any.
struct WithTrace<F> {
    inner: F,
    /// How a line of `inner` ends, and where the ids go in.
    end: &'static str,
    write: fn(&mut Writer<'_>, Ids<'_>) -> fmt::Result,
}

/// The trace's id and the span's.
type Ids<'a> = [&'a dyn fmt::Display; 2];

fn write_text(writer: &mut Writer<'_>, [trace, span]: Ids<'_>) -> fmt::Result {
    write!(writer, " trace_id={trace} span_id={span}")
}

fn write_json(writer: &mut Writer<'_>, [trace, span]: Ids<'_>) -> fmt::Result {
    write!(writer, r#","trace_id":"{trace}","span_id":"{span}""#)
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some((trace, span)) = current_ids() else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let Some(line) = line.strip_suffix(self.end) else { return writer.write_str(&line) };
        writer.write_str(line)?;
        (self.write)(&mut writer, [&trace, &span])?;
        writer.write_str(self.end)
    }
}

/// Of the traced span that this thread is in.
fn current_ids() -> Option<(impl fmt::Display, impl fmt::Display)> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id(), span.span_id()))
    })
}
