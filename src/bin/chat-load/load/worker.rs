//! `chat-load worker`: one process full of sockets. Does what it is told line by line, and says once a second what happened.

use std::{
    io::{BufRead as _, Write as _},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    machine,
    member::{Member, Order},
    pacer::Pacer,
    plan::Plan,
    pulse::{Pulse, Report, Task},
    shared::{RoomCount, Shared},
};

/// Sockets of one worker that are being opened at the same time.
const OPENING: usize = 256;
/// Orders that may wait for one member.
const ORDERS: usize = 1024;
/// Between two looks at whether everything has arrived.
const LOOK: Duration = Duration::from_millis(20);
/// For all sockets to close.
const CLOSE: Duration = Duration::from_secs(20);

/// Until its input ends.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Err(error) = runtime.block_on(work()) {
        say(&Report::Failed(format!("{error:#}")))?;
    }
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn say(report: &Report) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(report)?)?)
}

/// The lines of the input, and a cancellation at its end; `Stop` comes as another.
fn listen(lines: &mpsc::UnboundedSender<String>, stop: &CancellationToken, end: &CancellationToken) {
    let stop_line = serde_json::to_string(&Task::Stop).unwrap_or_default();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == stop_line {
            stop.cancel();
        } else if lines.send(line).is_err() {
            break;
        }
    }
    end.cancel();
}

async fn work() -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (lines, mut tasks) = mpsc::unbounded_channel();
    let end = CancellationToken::new();
    let listener = (stop.clone(), end.clone());
    thread::spawn(move || listen(&lines, &listener.0, &listener.1));
    let Some(line) = tasks.recv().await else { return Ok(()) };
    let (number, plan) = serde_json::from_str::<(usize, Plan)>(&line).context("the plan")?;
    machine::allow_sockets(plan.share(number).len())?;
    let shared = Arc::new(Shared::new(plan)?);
    let mut worker = Worker {
        number,
        shared,
        members: JoinSet::new(),
        orders: Vec::new(),
        leave: CancellationToken::new(),
        stop,
        pulse: machine::now(),
        cpu: machine::cpu(),
    };
    let attending = async {
        while let Some(line) = tasks.recv().await {
            worker.attend(serde_json::from_str(&line).context("a task")?).await?;
        }
        Ok(())
    };
    end.run_until_cancelled(attending).await.unwrap_or(Ok(()))
}

struct Worker {
    number: usize,
    shared: Arc<Shared>,
    members: JoinSet<()>,
    /// By socket.
    orders: Vec<(usize, mpsc::Sender<Order>)>,
    /// Sockets leave.
    leave: CancellationToken,
    /// What is under way ends.
    stop: CancellationToken,
    /// Of the last pulse.
    pulse: u64,
    cpu: u64,
}

impl Worker {
    /// Does a task, and says once a second how things stand.
    async fn attend(&mut self, task: Task) -> anyhow::Result<()> {
        let (mut pulse, mut cpu) = (self.pulse, self.cpu);
        let shared = self.shared.clone();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut doing = Box::pin(self.perform(task));
        loop {
            tokio::select! {
                done = &mut doing => break done?,
                _ = ticks.tick() => beat(&shared, &mut pulse, &mut cpu)?,
            }
        }
        drop(doing);
        beat(&shared, &mut pulse, &mut cpu)?;
        (self.pulse, self.cpu) = (pulse, cpu);
        let rooms = shared.state.lock().rooms.clone();
        say(&Report::Done(rooms))
    }

    async fn perform(&mut self, task: Task) -> anyhow::Result<()> {
        match task {
            Task::Open => self.open().await,
            Task::Talk { start, end } => self.talk(start, end).await,
            Task::Settle { stored } => self.settle(&stored).await,
            Task::Close => self.close().await,
            Task::Stop => Ok(()), // it does not come this way
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.shared.plan.patience_ms)
    }

    /// Starts all members at the pace that was asked for, and waits until each is in its room or has given up.
    async fn open(&mut self) -> anyhow::Result<()> {
        let plan = &self.shared.plan;
        let turns = Arc::new(Semaphore::new(OPENING));
        let start = Instant::now();
        let stop = self.stop.clone();
        for (place, socket) in plan.share(self.number).enumerate() {
            if plan.ramp > 0.0 {
                let at = start + Duration::from_secs_f64(place as f64 * plan.workers as f64 / plan.ramp);
                stop.run_until_cancelled(sleep_until(at)).await;
            }
            let Some(turn) = stop.run_until_cancelled(turns.clone().acquire_owned()).await else { break };
            let (tell, orders) = mpsc::channel(ORDERS);
            let member = Member::new(self.shared.clone(), socket, orders, turn?);
            self.orders.push((socket, tell));
            self.members.spawn(member.live(self.leave.clone()));
        }
        let all = u32::try_from(OPENING)?;
        if let Some(turns) = stop.run_until_cancelled(turns.acquire_many(all)).await {
            drop(turns?);
        }
        let settle = Duration::from_millis(self.shared.plan.settle_ms);
        stop.run_until_cancelled(sleep(settle)).await;
        Ok(())
    }

    async fn talk(&mut self, start: u64, end: u64) -> anyhow::Result<()> {
        self.shared.talk_began.store(start, Ordering::Relaxed);
        let pacer = Pacer::new()?;
        let plan = &self.shared.plan;
        let talkers: Vec<_> =
            self.orders.iter().filter(|(socket, _)| plan.talker(*socket).is_some()).cloned().collect();
        let talking = async {
            tokio::select! {
                said = pacer.talk(&self.shared, &talkers, (start, end)) => said,
                () = self.churn() => Ok(()),
            }
        };
        if let Some(said) = self.stop.run_until_cancelled(talking).await {
            said?;
        }
        drop(talkers);
        self.wait_until(|rooms, pending| pending == 0 || rooms.is_empty()).await;
        Ok(())
    }

    /// Now and then somebody leaves and comes back.
    async fn churn(&self) {
        let share = self.orders.len() as f64 / self.shared.plan.sockets().max(1) as f64;
        let rate = self.shared.plan.churn * share;
        if rate <= 0.0 {
            return std::future::pending().await;
        }
        loop {
            sleep(Duration::from_secs_f64(2.0 * fastrand::f64() / rate)).await;
            if let Some((_, orders)) = fastrand::choice(&self.orders) {
                let _ = orders.try_send(Order::Leave); // one that is busy stays
            }
        }
    }

    /// Waits until all members have what is in their rooms' logs.
    async fn settle(&self, stored: &[u64]) -> anyhow::Result<()> {
        let complete = |(room, stored): (&RoomCount, &u64)| room.arrived >= stored * room.members;
        self.wait_until(|rooms, _| rooms.iter().zip(stored).all(complete)).await;
        Ok(())
    }

    /// Until that holds, or for as long as anybody waits.
    async fn wait_until(&self, holds: impl Fn(&[RoomCount], u64) -> bool) {
        let look = || {
            let state = self.shared.state.lock();
            holds(&state.rooms, state.pending)
        };
        let waiting = async {
            while !look() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(self.patience(), waiting).await;
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        std::mem::take(&mut self.leave).cancel();
        self.orders.clear();
        let all = async { while self.members.join_next().await.is_some() {} };
        if timeout(CLOSE, all).await.is_err() {
            self.members.shutdown().await;
        }
        Ok(())
    }
}

/// Says what has happened since the last time.
fn beat(shared: &Shared, pulse: &mut u64, cpu: &mut u64) -> anyhow::Result<()> {
    let (now, used) = (machine::now(), machine::cpu());
    let (wall_ns, cpu_ns) = (now - *pulse, used - *cpu);
    (*pulse, *cpu) = (now, used);
    let (tally, open, pending) = {
        let mut state = shared.state.lock();
        (state.tally.take(), state.open, state.pending)
    };
    let rss_bytes = machine::resident();
    say(&Report::Pulse(Box::new(Pulse { tally, open, pending, cpu_ns, wall_ns, rss_bytes })))
}
