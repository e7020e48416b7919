//! The conversations in a document's ```` ```chat ```` blocks, as steps that can be played. Knows the notation, not the protocol.
//!
//! ```text
//! with KEY = VALUE                 a setting that is not the default; first
//! alice may CLAIM                  a token with these permissions, in place of the defaults
//! alice opens PATH [as KIND]       a socket, with alice's token; `nobody` has none
//! alice leaves                     closes it
//! alice → FRAME                    text; `binary HEX` is no text
//! alice → METHOD PATH [BODY]       over HTTP; lines below: headers, body
//! alice, bob ← FRAME               what both get
//! alice ← STATUS BODY              lines below: headers that are there too
//! alice ← close CODE REASON
//! * EVENT                          something happens to the service
//! (…)                              for the reader
//! ```
//!
//! A line that begins with a space goes on with the one before.

use serde_json::Value;

/// Stands for fields that are left out.
pub const ELISION: &str = "…";

#[derive(Debug)]
pub struct Conversation {
    /// Of the nodes, as keys of the configuration.
    pub settings: Vec<(String, String)>,
    /// Each with its line in the document.
    pub steps: Vec<(usize, Step)>,
}

impl Conversation {
    pub fn needs_redis(&self) -> bool {
        self.steps.iter().any(|(_, step)| matches!(step, Step::Happens(event) if event.starts_with("Redis")))
    }
}

#[derive(Debug)]
pub enum Step {
    May {
        client: String,
        claim: Value,
    },
    Open {
        client: String,
        path: String,
        kind: Option<String>,
    },
    Leave {
        client: String,
    },
    Happens(String),
    Send {
        client: String,
        text: String,
    },
    SendBinary {
        client: String,
        bytes: Vec<u8>,
    },
    Ask {
        client: String,
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// A run of lines, in the order of the document.
    Get(Vec<Receipt>),
}

/// What one client gets.
#[derive(Debug)]
pub struct Receipt {
    pub line: usize,
    pub client: String,
    pub what: Get,
}

#[derive(Debug, Clone)]
pub enum Get {
    Frame(Value),
    Answer { status: u16, headers: Vec<(String, String)>, body: Value },
    Close { code: u16, reason: String },
}

/// All conversations. A frame that stands anywhere else, or is not in the notation, is an error that names its line.
pub fn conversations(document: &str) -> Result<Vec<Conversation>, String> {
    let (mut conversations, mut block): (Vec<Conversation>, Option<Vec<(usize, String)>>) = (Vec::new(), None);
    for (number, line) in (1..).zip(document.lines()) {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some("chat")) => block = Some(Vec::new()),
            (None, Some(kind)) => return Err(format!("line {number}: a block of {kind:?}, which is not played")),
            // Prose may name fields, but a frame in it would not be played.
            (None, None) if line.contains("{\"") => {
                return Err(format!("line {number}: a frame outside a conversation: {line}"));
            }
            (None, None) => {}
            (Some(lines), Some("")) => {
                conversations.push(conversation(lines)?);
                block = None;
            }
            (Some(lines), _) => match (line.starts_with(' '), lines.last_mut()) {
                (true, Some((_, text))) => *text = format!("{text}\n{}", line.trim()),
                _ => lines.push((number, line.to_owned())),
            },
        }
    }
    if block.is_some() { Err("a block that does not end".into()) } else { Ok(conversations) }
}

fn conversation(lines: &[(usize, String)]) -> Result<Conversation, String> {
    let (mut settings, mut steps) = (Vec::new(), Vec::<(usize, Step)>::new());
    for (line, text) in lines.iter().filter(|(_, text)| !text.starts_with('(')) {
        if let Some((key, value)) = text.strip_prefix("with ").and_then(|setting| setting.split_once(" = ")) {
            settings.push((key.to_owned(), value.to_owned()));
            continue;
        }
        let step = step(*line, text).map_err(|error| format!("line {line}: {error}: {text}"))?;
        match (steps.last_mut(), step) {
            (Some((_, Step::Get(before))), Step::Get(more)) => before.extend(more),
            (_, step) => steps.push((*line, step)),
        }
    }
    Ok(Conversation { settings, steps })
}

fn step(line: usize, text: &str) -> Result<Step, String> {
    let own = str::to_owned;
    if let Some(event) = text.strip_prefix("* ") {
        return Ok(Step::Happens(own(event)));
    }
    if let Some((client, claim)) = text.split_once(" may ").filter(|(client, _)| !client.contains(' ')) {
        return Ok(Step::May { client: own(client), claim: json(claim)? });
    }
    if let Some((client, rest)) = text.split_once(" opens ") {
        let (path, kind) = rest.split_once(" as ").map_or((rest, None), |(path, kind)| (path, Some(own(kind))));
        return Ok(Step::Open { client: own(client), path: own(path), kind });
    }
    if let Some(client) = text.strip_suffix(" leaves") {
        return Ok(Step::Leave { client: own(client) });
    }
    if let Some((client, sent)) = text.split_once(" → ") {
        return sends(client, sent);
    }
    let (clients, got) = text.split_once(" ← ").ok_or("a line that is no step")?;
    let what = gets(got)?;
    let receipts = clients.split(", ").map(|client| Receipt { line, client: own(client), what: what.clone() });
    Ok(Step::Get(receipts.collect()))
}

fn sends(client: &str, sent: &str) -> Result<Step, String> {
    let client = client.to_owned();
    if let Some(hex) = sent.strip_prefix("binary ") {
        let byte = |n: usize| u8::from_str_radix(hex.get(n..n + 2).unwrap_or_default(), 16);
        let bytes = (0..hex.len()).step_by(2).map(byte).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        return Ok(Step::SendBinary { client, bytes });
    }
    let method = sent.split(' ').next().unwrap_or_default();
    if !["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"].contains(&method) {
        return Ok(Step::Send { client, text: sent.replace('\n', "") });
    }
    let (request, lines) = sent.split_once('\n').unwrap_or((sent, ""));
    let mut parts = request.splitn(3, ' ').skip(1).map(str::to_owned);
    let (path, body) = (parts.next().ok_or("a request without a path")?, parts.next().unwrap_or_default());
    let (headers, more) = headers(lines);
    Ok(Step::Ask { client, method: method.to_owned(), path, headers, body: body + &more })
}

fn gets(got: &str) -> Result<Get, String> {
    if let Some(close) = got.strip_prefix("close ") {
        let (code, reason) = close.split_once(' ').unwrap_or((close, ""));
        return Ok(Get::Close { code: code.parse().map_err(|_| "no close code")?, reason: reason.to_owned() });
    }
    if got.starts_with('{') {
        return Ok(Get::Frame(json(got)?));
    }
    let (status, rest) = got.split_once(' ').unwrap_or((got, ""));
    let (headers, body) = headers(rest);
    let status = status.parse().map_err(|_| "neither a frame, a status nor a close")?;
    let body = if body.is_empty() { Value::Null } else { json(&body)? };
    Ok(Get::Answer { status, headers, body })
}

/// Splits `Name: value` lines from the rest.
fn headers(lines: &str) -> (Vec<(String, String)>, String) {
    let (mut headers, mut rest) = (Vec::new(), String::new());
    for line in lines.lines() {
        match line.split_once(": ") {
            Some((name, value)) if name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') => {
                headers.push((name.to_ascii_lowercase(), value.to_owned()));
            }
            _ => rest.push_str(line),
        }
    }
    (headers, rest)
}

/// JSON in which `,…}` leaves fields out.
fn json(text: &str) -> Result<Value, String> {
    let text = text.replace(",…}", &format!(",\"{ELISION}\":0}}"));
    serde_json::from_str(&text).map_err(|error| format!("not JSON ({error})"))
}
