//! How a log line is written: text or JSON, with the ids of the trace that it belongs to and the number of lines like it that were held back.
//!
//! Owns nothing of what is logged: the filter is the subscriber's, the rate `flood`'s.

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

use super::flood::Flood;
use crate::config::LogFormat;

/// Whether standard output may be coloured.
pub(super) fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes events to `writer`; one that cannot be written is gone, silently.
pub(super) fn layer<S, W>(format: LogFormat, ansi: bool, flood: Flood, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // By default an error would be written to standard error, and a closed one panics.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(writer);
    match format {
        LogFormat::Text => {
            let format = WithEnd { inner: Format::default().with_ansi(ansi), style: Style::Text, flood };
            layer.fmt_fields(DefaultFields::new()).event_format(format).boxed()
        }
        LogFormat::Json => {
            let json = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
            let format = WithEnd { inner: json, style: Style::Json, flood };
            layer.fmt_fields(JsonFields::new()).event_format(format).boxed()
        }
    }
}

/// A format whose lines end with what the event itself does not know, if there is something.
struct WithEnd<F> {
    inner: F,
    style: Style,
    flood: Flood,
}

/// How a line ends, and what is added to it is written.
#[derive(Debug, Clone, Copy)]
enum Style {
    Text,
    Json,
}

impl Style {
    fn end(self) -> &'static str {
        match self {
            Self::Text => "\n",
            Self::Json => "}\n",
        }
    }

    fn ids(self, writer: &mut Writer<'_>, trace: impl fmt::Display, span: impl fmt::Display) -> fmt::Result {
        match self {
            Self::Text => write!(writer, " trace_id={trace} span_id={span}"),
            Self::Json => write!(writer, r#","trace_id":"{trace}","span_id":"{span}""#),
        }
    }

    fn suppressed(self, writer: &mut Writer<'_>, lines: u64) -> fmt::Result {
        match self {
            Self::Text => write!(writer, " suppressed={lines}"),
            Self::Json => write!(writer, r#","suppressed":{lines}"#),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithEnd<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Nothing written is no line. A filter of the layer could not say so: `tracing-subscriber` loses count of those that
        // change their mind over the event itself.
        let Some(suppressed) = self.flood.admit(event.metadata()) else { return Ok(()) };
        let ids = current_ids();
        if ids.is_none() && suppressed == 0 {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let Some(line) = line.strip_suffix(self.style.end()) else { return writer.write_str(&line) };
        writer.write_str(line)?;
        if suppressed > 0 {
            self.style.suppressed(&mut writer, suppressed)?;
        }
        if let Some((trace, span)) = ids {
            self.style.ids(&mut writer, trace, span)?;
        }
        writer.write_str(self.style.end())
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
