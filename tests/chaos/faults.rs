//! What is done to a rig. Each fault says when it begins and when it is over; what comes after is the row's.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    client::Nap,
    rig::{NODES, PUBLISHER, Rig, SUBSCRIBER},
    rows::Scale,
    support::{
        eventually, http,
        proxy::{Flow, Way, Which},
    },
    witness::Witness,
};

const SECOND: Duration = Duration::from_secs(1);

/// A short wait in short form.
fn pick(scale: Scale, short: u32, long: u32) -> Duration {
    SECOND * if scale == Scale::Short { short } else { long }
}

/// kill -9 of one node; another starts in its place.
pub async fn kill_a_node(rig: &mut Rig, _: Scale) {
    let victim = rig.rng.usize(..NODES);
    kill_node(rig, victim).await;
}

/// The same of this one.
pub async fn kill_node(rig: &mut Rig, victim: usize) {
    rig.begin();
    rig.nodes[victim].signal("KILL");
    rig.heal();
    eventually("it is gone", || async { rig.nodes[victim].exited() }).await;
    sleep(SECOND).await;
    rig.replace(victim).await;
}

/// SIGTERM to each node in turn; the next when its successor is ready.
pub async fn roll_all_nodes(rig: &mut Rig, _: Scale) {
    rig.begin();
    for node in 0..NODES {
        rig.mark();
        let start = Instant::now();
        rig.nodes[node].signal("TERM");
        let status = rig.nodes[node].wait(Duration::from_secs(60)).await;
        rig.notes.push(format!("node {node} ended after {:.1} s", start.elapsed().as_secs_f64()));
        if !status.success() {
            rig.failures.push(format!("node {node} ended with {status}"));
        }
        rig.replace(node).await;
    }
    rig.heal();
}

/// SIGSTOP of one node, for longer than its clients wait.
pub async fn freeze_a_node(rig: &mut Rig, scale: Scale) {
    let victim = rig.rng.usize(..NODES);
    rig.begin();
    rig.nodes[victim].signal("STOP");
    sleep(pick(scale, 5, 10)).await;
    rig.nodes[victim].signal("CONT");
    rig.heal();
}

/// kill -9 of Redis; it comes back with what it has on disk.
pub async fn kill_redis(rig: &mut Rig, scale: Scale) {
    let witness = Witness::start(rig.redis.address()).await;
    rig.begin();
    rig.redis.written().await;
    rig.redis.kill();
    sleep(pick(scale, 2, 3)).await;
    rig.redis.restart().await;
    rig.heal();
    let lost = witness.lost(&rig.redis).await;
    rig.redis_lost(lost);
    eventually("all nodes reach Redis again", || async { rig.metric("chat_redis_up").await > NODES as f64 - 0.5 })
        .await;
    rig.notes.push(format!("all nodes were back on Redis after {:.1} s", rig.since_heal().as_secs_f64()));
}

/// SIGSTOP of Redis, for longer than a command may take.
pub async fn freeze_redis(rig: &mut Rig, scale: Scale) {
    let freezes: &[u32] = if scale == Scale::Short { &[4] } else { &[2, 10] };
    rig.begin();
    for (n, seconds) in freezes.iter().enumerate() {
        if n > 0 {
            rig.progress(200).await;
        }
        rig.redis.freeze();
        sleep(SECOND * *seconds).await;
        rig.redis.thaw();
    }
    rig.heal();
}

/// The replica becomes a master while the old one goes on; then the old one dies, and the nodes come to the new one.
pub async fn fork(rig: &mut Rig, _: Scale) {
    rig.begin();
    rig.replica().promote().await;
    // What is acknowledged from here on is lost.
    let start = Instant::now();
    rig.progress(100).await;
    sleep((2 * SECOND).saturating_sub(start.elapsed())).await;
    rig.redis.kill();
    let target = rig.replica().address();
    rig.links.iter().for_each(|link| link.retarget(target));
    rig.heal();
}

/// The same fork, then back to the same process, which has forgotten: nobody wrote in between.
pub async fn fail_back(rig: &mut Rig, _: Scale) {
    rig.begin();
    rig.replica().promote().await;
    rig.progress(100).await;
    rig.redis.follow(rig.replica()).await;
    rig.redis.promote().await;
    rig.replica().follow(&rig.redis).await;
    rig.heal();
}

/// The master dies; the sentinels promote the replica, and none of their announcements reaches a node.
pub async fn sentinel_failover(rig: &mut Rig, _: Scale) {
    for watch in &rig.watches {
        watch.rule(Which::Saying(SUBSCRIBER), Way::Down, Flow { hold: true, ..Flow::default() });
    }
    rig.begin();
    rig.redis.kill();
    let (sentinels, new) = (rig.sentinels.as_ref().expect("this rig has sentinels"), rig.replica().address());
    eventually("the sentinels have failed over", || async { sentinels.master().await == Some(new) }).await;
    rig.heal();
}

/// Redis drops all its subscribers, again and again.
pub async fn kill_subscriptions(rig: &mut Rig, scale: Scale) {
    rig.begin();
    let start = Instant::now();
    while start.elapsed() < pick(scale, 5, 30) {
        rig.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        sleep(SECOND / 2).await;
    }
    rig.heal();
}

/// Nothing comes down one node's subscription any more, though the connection stays.
pub async fn blackhole_a_subscription(rig: &mut Rig, scale: Scale) {
    let victim = rig.rng.usize(..NODES);
    let before = rig.nodes[victim].metric("chat_redis_reconnects_total").await;
    rig.begin();
    let hold = Flow { hold: true, ..Flow::default() };
    rig.links[victim].rule_for_open(Which::Saying(SUBSCRIBER), Way::Down, hold);
    let start = Instant::now();
    let node = &rig.nodes[victim];
    eventually("the node has a new subscription", || async {
        node.metric("chat_redis_reconnects_total").await > before
    })
    .await;
    let found = start.elapsed();
    rig.found(found);
    sleep(pick(scale, 1, 30).saturating_sub(found)).await;
    rig.heal();
}

/// One node's subscription gets 32 KiB a second, until Redis drops it.
pub async fn throttle_a_subscription(rig: &mut Rig, scale: Scale) {
    let victim = rig.rng.usize(..NODES);
    rig.begin();
    let slow = Flow { bytes_per_second: Some(32 * 1024), ..Flow::default() };
    rig.links[victim].rule(Which::Saying(SUBSCRIBER), Way::Down, slow);
    sleep(pick(scale, 10, 30)).await;
    rig.heal();
}

/// One node's connections come to a replica that has lost its master: it answers, and nothing ever happens there.
pub async fn detach_a_subscription(rig: &mut Rig, _: Scale) {
    let victim = rig.rng.usize(..NODES);
    rig.replica().follow_nobody().await;
    let target = rig.replica().address();
    rig.begin();
    rig.links[victim].retarget(target);
    rig.links[victim].cut(Which::Saying(SUBSCRIBER));
    let start = Instant::now();
    let node = &rig.nodes[victim];
    let mut seen = false;
    while !seen && start.elapsed() < 30 * SECOND {
        sleep(SECOND / 10).await;
        seen = node.manage("/readyz").await.status == 503;
    }
    if seen {
        rig.found(start.elapsed());
    }
    let master = rig.redis.address();
    rig.links[victim].retarget(master);
    rig.links[victim].cut(Which::Saying(SUBSCRIBER));
    rig.heal();
    rig.ready().await;
}

/// Redis is full and refuses every write.
pub async fn fill_redis(rig: &mut Rig, scale: Scale) {
    rig.begin();
    rig.redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    sleep(pick(scale, 2, 5)).await;
    rig.redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    rig.heal();
}

/// Every connection that publishes is reset in the middle of a reply, again and again.
pub async fn cut_replies(rig: &mut Rig, scale: Scale) {
    rig.begin();
    let start = Instant::now();
    while start.elapsed() < pick(scale, 5, 20) {
        for link in &rig.links {
            link.heal();
            let flow = Flow { reset_after: Some(rig.rng.usize(5..2000)), ..Flow::default() };
            link.rule(Which::Saying(PUBLISHER), Way::Down, flow);
        }
        sleep(SECOND / 2).await;
    }
    rig.heal();
}

/// Everything is slow and comes in crumbs: to Redis, and to the clients.
pub async fn slow_links(rig: &mut Rig, scale: Scale) {
    rig.begin();
    let (delay, jitter) = (Duration::from_millis(100), Duration::from_millis(50));
    for proxy in rig.links.iter().chain(&rig.doors) {
        for way in [Way::Up, Way::Down] {
            proxy.rule(Which::All, way, Flow { delay, jitter, slices: 16, ..Flow::default() });
        }
    }
    sleep(pick(scale, 5, 20)).await;
    let start = Instant::now();
    http::get(rig.doors[0].address, "/api/chat-api/rooms/room-0/messages", &[]).await;
    rig.trace(start.elapsed() > 2 * delay);
    rig.notes.push(format!("one read took {:.1} s", start.elapsed().as_secs_f64()));
    rig.heal();
}

/// Some clients have no socket, for longer than the log reaches back.
pub async fn sleep_past_the_log(rig: &mut Rig, _: Scale) {
    rig.begin();
    rig.load.nap(Nap::Offline);
    rig.progress(4000).await;
    rig.load.nap(Nap::Awake);
    rig.heal();
}

/// All clients lose their sockets at once. Meanwhile the nodes publish as quickly as before: 99 of 100 within half a second.
pub async fn cut_all_clients(rig: &mut Rig, scale: Scale) {
    rig.begin();
    let (all, quick) = ("chat_publish_duration_seconds_count", "chat_publish_duration_seconds_bucket");
    let quick = |limit: f64| format!(r#"{quick}{{le="{limit}"}}"#);
    let limits = [0.5, 1.0, 2.5, 10.0];
    let (all_before, mut quick_before) = (rig.metric(all).await, [0.0; 4]);
    for (count, limit) in quick_before.iter_mut().zip(limits) {
        *count = rig.metric(&quick(limit)).await;
    }
    let cut: usize = rig.doors.iter().map(|door| door.cut(Which::All)).sum();
    rig.notes.push(format!("{cut} sockets were reset at once"));
    rig.heal();
    rig.warm_up(300).await;
    let pace = rig.pace();
    let at = limits.iter().position(|limit| *limit >= 0.5 * pace).unwrap_or(limits.len() - 1);
    let published = rig.metric(all).await - all_before;
    let late = published - (rig.metric(&quick(limits[at])).await - quick_before[at]);
    rig.notes.push(format!("{late} of {published} publishes took longer than {} s", limits[at]));
    if scale == Scale::Long && late > published / 100.0 {
        rig.failures.push("publishing was slow meanwhile".into());
    }
}

/// Some clients keep their sockets and read nothing.
pub async fn stop_reading(rig: &mut Rig, scale: Scale) {
    rig.begin();
    rig.load.nap(Nap::Stall);
    sleep(pick(scale, 15, 20)).await;
    rig.load.nap(Nap::Awake);
    rig.heal();
}

/// Somebody else writes into our channels and logs.
pub async fn write_garbage(rig: &mut Rig, scale: Scale) {
    let deep = "[".repeat(100_000);
    let garbage = [
        "",
        "\u{0}\u{1}",
        "not JSON",
        "{}",
        "[]",
        "null",
        r#"{"v":1}"#,
        r#"{"v":2,"id":"9-9","prev":"9-8","ts":1,"type":"chat","client_id":"x","payload":{"k":"forged"}}"#,
        r#"{"v":1,"id":"nonsense","prev":"0-0","ts":1,"type":"chat","client_id":"x","payload":{"k":"forged"}}"#,
        r#"{"v":1,"id":"1-1","ts":1,"type":"chat","client_id":"x","payload":{"k":"forged"}}"#,
        r#"{"v":1,"id":"1-2","prev":"1-1","ts":1,"type":"chat","client_id":"x","payload":{"k":"#,
        r#"{"v":1,"id":"1-2","prev":"1-1","ts":"late","type":7,"client_id":[],"payload":{"k":"forged"}}"#,
        deep.as_str(),
    ];
    rig.begin();
    let start = Instant::now();
    while start.elapsed() < pick(scale, 3, 10) {
        for junk in garbage {
            let room = rig.rng.usize(..rig.rooms());
            let (channel, log) = (format!("{{chat:room-{room}}}"), format!("{{chat:room-{room}}}:log"));
            rig.redis.command(&["PUBLISH", &channel, junk]).await;
            let newest = rig.redis.command(&["XREVRANGE", &log, "+", "-", "COUNT", "1"]).await;
            let id = newest.lines().find_map(|line| line.split_once("-").filter(|(seq, _)| seq.parse::<u64>().is_ok()));
            if let Some((seq, part)) = id {
                // Behind the newest message and before the next; refused if that is there already.
                let id = format!("{seq}-{}", part.parse::<u64>().unwrap_or(0) + 1);
                rig.redis.command(&["XADD", &log, &id, "d", junk]).await;
            }
        }
        sleep(SECOND / 20).await;
    }
    rig.heal();
}

/// The clock of one node goes an hour forward, then an hour back.
pub async fn jump_the_clock(rig: &mut Rig, scale: Scale) {
    rig.begin();
    for offset in ["+3600", "-3600"] {
        rig.set_clock(offset).await;
        sleep(pick(scale, 2, 10)).await;
    }
    rig.set_clock("+0").await;
    rig.heal();
}
