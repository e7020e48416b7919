//! Standard output that nobody waits for: lines go to a thread of its own by way of a bounded queue.
//!
//! Where whoever reads them stands still, say a node's disk, a write blocks; were that in the tasks that serve, probes and sockets would stand still
//! with it. What the queue does not take is dropped and counted.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const QUEUE: usize = 4096;
/// How long the last ones get at the end.
const LAST: Duration = Duration::from_secs(1);
/// How often the end looks whether the queue has room again.
const POLL: Duration = Duration::from_millis(5);

/// Where lines are handed in.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    dropped: IntCounter,
}

/// Waits for the last lines when dropped.
#[derive(Debug)]
pub(super) struct Flush {
    lines: Lines,
    written: Receiver<()>,
}

/// A line; handed in when dropped.
pub(super) struct Line<'a> {
    text: Vec<u8>,
    lines: &'a Lines,
}

/// Starts the thread, which writes to `output` for as long as the process lives. An empty line asks it for a sign.
pub(super) fn start(mut output: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<(Lines, Flush)> {
    let (queue, lines) = sync_channel::<Vec<u8>>(QUEUE);
    let (sign, written) = sync_channel(1);
    thread::Builder::new().name("log".into()).spawn(move || {
        for line in lines {
            if line.is_empty() {
                let _ = output.flush();
                let _ = sign.try_send(());
            } else {
                let _ = output.write_all(&line); // a closed output is nobody's loss
            }
        }
    })?;
    let lines = Lines { queue, dropped };
    Ok((lines.clone(), Flush { lines, written }))
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { text: Vec::new(), lines: self }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() && self.lines.queue.try_send(text).is_err() {
            self.lines.dropped.inc();
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let end = Instant::now() + LAST;
        // A full queue has no place for the question either.
        while self.lines.queue.try_send(Vec::new()).is_err() && Instant::now() < end {
            thread::sleep(POLL);
        }
        let _ = self.written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Stands still until it is let go.
    struct Stuck(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_an_output_that_stands_still() {
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        let (let_go, held) = mpsc::channel();
        let (seen, written) = mpsc::channel();
        let (lines, flush) = start(Stuck(held, seen), dropped.clone()).unwrap();
        for n in 0..QUEUE + 10 {
            writeln!(lines.make_writer(), "{n}").unwrap();
        }
        assert!((9..=10).contains(&dropped.get()), "one may be under way: {}", dropped.get());
        drop(let_go);
        drop(flush);
        let lines: Vec<_> = written.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(lines.first().map(String::as_str), Some("0\n"));
        assert!(lines.len() >= QUEUE, "all that was taken came out: {}", lines.len());
    }
}
