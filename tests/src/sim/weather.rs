//! What goes wrong around the nodes: partitions, pauses, crashes, clocks. And nodes that leave in order.

use super::*;

/// Time between two looks at the weather.
const TICK_NS: u64 = 100 * MS;

impl World {
    pub(super) fn weather(&mut self) {
        let storm_ns = self.storm_ns();
        if self.now > storm_ns {
            return;
        }
        self.soon(TICK_NS / 2, TICK_NS * 3 / 2, Happening::Weather);
        let faults = self.faults;
        let count = self.nodes.len();
        let drop_ns = self.plan.scene.drop_time_ms * MS;
        if self.random.chance(faults.one_way) {
            let from = self.random.index(count);
            let to = (from + 1 + self.random.index(count - 1)) % count;
            let until = self.until(20 * MS, 2 * drop_ns);
            self.partition(from, to, until);
        }
        if self.random.chance(faults.partition) {
            let until = self.until(20 * MS, 2 * drop_ns);
            let side: Vec<bool> = (0..count).map(|_| self.random.chance(500)).collect();
            for from in 0..count {
                for to in 0..count {
                    if side[from] != side[to] {
                        self.partition(from, to, until);
                    }
                }
            }
        }
        if self.random.chance(faults.pause) {
            let until = self.until(5 * MS, drop_ns * 9 / 10);
            self.pause(until);
        }
        if self.random.chance(faults.long_pause) {
            let until = self.until(drop_ns, 3 * drop_ns);
            self.pause(until);
        }
        if faults.hang > 0 && self.random.chance(faults.hang) {
            self.hang();
        }
        if self.random.chance(faults.clock_jump) {
            let node = self.random.index(count);
            let by = self.random.between(MS, 2 * drop_ns);
            self.jump(node, by);
        }
        if self.random.chance(faults.crash) {
            let node = self.random.index(count);
            self.crash(node);
        }
        if self.random.chance(faults.leave) {
            let node = self.random.index(count);
            self.begin_leaving(node);
        }
    }

    /// A moment soon; all is well again at the end of the storm.
    fn until(&mut self, least_ns: u64, most_ns: u64) -> u64 {
        let least = self.now + 1;
        (self.now + self.random.between(least_ns, most_ns)).min(self.storm_ns()).max(least)
    }

    /// What happens to a node until then explains that others drop it, or that it drops others.
    pub(super) fn trouble(&mut self, node: usize, until: u64) {
        // Silence has to last for mcastDropTime, and a probe for its time.
        let slack = 2 * self.plan.scene.drop_time_ms * MS + 1_500 * MS;
        let spot = &mut self.spots[node];
        spot.troubled_until = spot.troubled_until.max(until + slack);
    }

    fn partition(&mut self, from: usize, to: usize, until: u64) {
        self.net.block(from, to, until);
        self.trouble(from, until);
        self.trouble(to, until);
        let what = format_args!("nothing reaches node {to} until {} ms", until / MS);
        self.trace.say(self.now, from, 0, what);
    }

    fn pause(&mut self, until: u64) {
        let node = self.random.index(self.nodes.len());
        let spot = &mut self.spots[node];
        if spot.paused_until > self.now {
            return;
        }
        spot.paused_until = until;
        self.trouble(node, until);
        self.checker.paused(node, self.now, until);
        let life = self.spots[node].lives_count;
        self.trace.say(self.now, node, life, format_args!("stands still until {} ms", until / MS));
        self.at(until, Happening::Resume { node });
    }

    /// An application takes nothing; the engine under it goes on.
    fn hang(&mut self) {
        let node = self.random.index(self.nodes.len());
        let ack_timeout_ns = self.plan.scene.ack_timeout_ms * MS;
        let until = self.until(2 * ack_timeout_ns, 8 * ack_timeout_ns);
        let Some(running) = &self.nodes[node] else { return };
        let spot = &mut self.spots[node];
        if spot.hangs_until > self.now {
            return;
        }
        spot.hangs_until = until;
        self.checker.hung((node, running.life), self.now, until);
        let what = format_args!("its application takes nothing until {} ms", until / MS);
        self.trace.say(self.now, node, running.life, what);
        self.at(until, Happening::Resume { node });
    }

    pub(super) fn resume(&mut self, node: usize) {
        let now = self.now;
        let Some(running) = self.nodes[node].as_mut() else { return };
        let life = running.life;
        let what = format_args!("goes on, its clock shows {} ms", running.clock.shows(now) / MS);
        self.trace.say(now, node, life, what);
        self.all_is_due(node);
    }

    fn jump(&mut self, node: usize, by: u64) {
        let now = self.now;
        let Some(running) = self.nodes[node].as_mut() else { return };
        running.clock.jump(now, by);
        let what = format_args!("its clock jumps by {} ms", by / MS);
        self.trace.say(now, node, running.life, what);
        self.trouble(node, now);
        self.checker.paused(node, now, now + by);
        self.all_is_due(node);
    }

    /// A node's clock is later than its deadlines say.
    fn all_is_due(&mut self, node: usize) {
        let at = self.now + 1;
        let Some(running) = self.nodes[node].as_mut() else { return };
        let life = running.life;
        running.turns.iter_mut().for_each(|turn| *turn = None);
        running.membership_tick = Some(at);
        running.poll_at = None;
        let workers = running.turns.len();
        self.at(at, Happening::MembershipTick { node, life });
        for worker in 0..workers {
            self.wake(Place { node, life, worker }, at);
        }
        self.poll_soon(node);
    }

    fn crash(&mut self, node: usize) {
        let life = self.spots[node].lives_count;
        let silent = self.random.chance(self.faults.silent_crash);
        let for_good = self.random.chance(self.faults.crash_for_good) && self.living() > 2;
        let (dead, stock) = (self.nodes[node].take(), self.stocks[node].take());
        if dead.is_none() && stock.is_none() {
            return;
        }
        if let Some(dead) = dead {
            self.duplicates_count += counter(&dead.shared, "duplicates_count");
        }
        let how = if silent { "its host dies" } else { "it crashes" };
        self.trace.say(self.now, node, life, format_args!("{how}, for good: {for_good}"));
        let (net, mut call) = self.kernel();
        net.crash(node, life, silent, &mut call);
        self.ends((node, life), for_good);
    }

    /// A life has ended.
    pub(super) fn ends(&mut self, life: Life, for_good: bool) {
        let node = life.0;
        self.spots[node].paused_until = 0;
        self.spots[node].hangs_until = 0;
        self.checker.life_ended(life);
        if for_good {
            self.spots[node].is_abandoned = true;
            self.trouble(node, u64::MAX / 2);
        } else {
            let at = self.until(50 * MS, 1_500 * MS);
            self.trouble(node, at + 500 * MS);
            self.at(at, Happening::Start { node });
        }
    }
}
