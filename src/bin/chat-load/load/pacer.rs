//! The clock of the talk: each message has its time, whatever became of those before it.
//!
//! A timer of the kernel, as tokio's counts in milliseconds, which is longer than a delivery takes.

use std::{io::ErrorKind, os::fd::OwnedFd};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use super::{machine, member::Order, shared::Shared};

/// See the module.
pub(super) struct Pacer(AsyncFd<OwnedFd>);

impl Pacer {
    #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that asks for")]
    pub(super) fn new() -> anyhow::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Waits for a moment, in nanoseconds.
    pub(super) async fn until(&self, at: u64) -> anyhow::Result<()> {
        if machine::now() >= at {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let once = Itimerspec { it_interval: machine::timespec(0), it_value: machine::timespec(at) };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// Hands every message to its talker when it is due, between two moments in nanoseconds. `talkers` by their number among the sockets.
    pub(super) async fn talk(
        &self,
        shared: &Shared,
        talkers: &[(usize, mpsc::Sender<Order>)],
        (start, end): (u64, u64),
    ) -> anyhow::Result<()> {
        for message in 0.. {
            for (socket, orders) in talkers {
                let due = shared.plan.schedule(*socket, message).and_then(|wait| start.checked_add(wait));
                let Some(due) = due.filter(|due| *due < end) else { return self.until(end).await };
                self.until(due).await?;
                let said = orders.try_send(Order::Say(due));
                let mut state = shared.state.lock();
                match said {
                    Ok(()) => state.pending += 1,
                    Err(mpsc::error::TrySendError::Full(_)) => state.tally.counts.overrun += 1,
                    Err(mpsc::error::TrySendError::Closed(_)) => state.tally.counts.abandoned += 1,
                }
            }
            if talkers.is_empty() {
                break;
            }
        }
        self.until(end).await
    }
}
