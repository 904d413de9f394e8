//! Who works for which run: one owner, in the scheduler's process, gives executors to runs, all that a run needs at once
//! and in the order in which runs asked. So two runs cannot each hold half of what both need. A run that cannot be served
//! yet keeps all later ones waiting; otherwise one that needs many would never have its turn.
//!
//! Both sides say every second that they are there: an executor by its [`Member`], a run by repeating its
//! [`LeaseRequest`]. Whoever is silent for [`SILENCE`] is gone, and what it held is free; an executor that a run has lost
//! is gone until it is heard again. The clock is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::conversation::SILENCE;

/// An executor that takes ranks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its name.
    pub id: String,
    /// Different each time it is started.
    pub incarnation: String,
    /// Where it takes ranks.
    pub host: String,
    /// At which port.
    pub port: u16,
    /// Cores of a rank.
    pub cores: u32,
    /// Told to end: it takes no more ranks.
    #[serde(default)]
    pub leaving: bool,
}

/// What a run asks for, again every second as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseRequest {
    /// Its id.
    pub run: String,
    /// Which generation the workers are for; a new one gives back those of the one before.
    pub generation: u32,
    /// Fewer do not help.
    pub least: usize,
    /// More are not wanted.
    pub most: usize,
    /// How long to wait while fewer than `least` live.
    pub wait_ms: u64,
    /// Incarnations that the run has lost or blames: they are taken only when there are no others, and not before they
    /// are heard again.
    #[serde(default)]
    pub avoid: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseAnswer {
    /// These work for the run, in the order of its ranks.
    Granted {
        /// For which generation.
        generation: u32,
        /// Who.
        members: Vec<Member>,
    },
    /// Not yet.
    Waiting {
        /// Runs that come first or hold workers.
        ahead: usize,
        /// Workers that live.
        have: usize,
    },
    /// There were too few for too long; the request is withdrawn.
    Short {
        /// Workers that live.
        have: usize,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Leases {
    members: BTreeMap<String, Known>,
    /// In the order in which they came.
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Known {
    member: Member,
    seen: Duration,
    /// A run has lost it, and it has not been heard since.
    is_doubted: bool,
}

#[derive(Debug)]
struct Run {
    request: LeaseRequest,
    renewed: Duration,
    /// Since when fewer live than it needs.
    short_since: Option<Duration>,
    /// Whether `held` is for the generation that it asks for; else it is what is left of the one before.
    granted: bool,
    held: Vec<Member>,
}

impl Leases {
    /// An executor says that it is there.
    pub fn heartbeat(&mut self, member: Member, now: Duration) {
        self.members.insert(member.id.clone(), Known { member, seen: now, is_doubted: false });
        self.settle(now);
    }

    /// A run asks, or asks again.
    pub fn ask(&mut self, request: LeaseRequest, now: Duration) -> LeaseAnswer {
        let name = request.run.clone();
        let is_new = |run: &Run| run.request.run == name && run.request.generation == request.generation;
        if !self.runs.iter().any(is_new) {
            let doubted = self.members.values_mut().filter(|known| request.avoid.contains(&known.member.incarnation));
            doubted.for_each(|known| known.is_doubted = true);
        }
        match self.runs.iter_mut().find(|run| run.request.run == name) {
            None => self.runs.push(Run { request, renewed: now, short_since: None, granted: false, held: Vec::new() }),
            Some(run) => {
                run.renewed = now;
                if run.request.generation < request.generation {
                    run.granted = false;
                    run.short_since = None;
                    run.request = request;
                }
            }
        }
        self.settle(now);
        self.answer(&name, now)
    }

    /// A run has ended.
    pub fn release(&mut self, run: &str, now: Duration) {
        self.runs.retain(|known| known.request.run != run);
        self.settle(now);
    }

    /// Names of the executors that work for runs.
    pub fn lent(&mut self, now: Duration) -> Vec<String> {
        self.settle(now);
        self.runs.iter().flat_map(|run| &run.held).map(|member| member.id.clone()).collect()
    }

    /// Executors that live and take ranks.
    pub fn available(&mut self, now: Duration) -> usize {
        self.settle(now);
        self.living().count()
    }

    fn living(&self) -> impl Iterator<Item = &Member> {
        let takes_ranks = |known: &&Known| !known.member.leaving && !known.is_doubted;
        self.members.values().filter(takes_ranks).map(|known| &known.member)
    }

    /// Forgets who is gone, then serves runs in order until one cannot be.
    fn settle(&mut self, now: Duration) {
        let silent = |seen: Duration| now.saturating_sub(seen) > SILENCE;
        self.members.retain(|_, known| !silent(known.seen));
        self.runs.retain(|run| !silent(run.renewed));
        let living: Vec<Member> = self.living().cloned().collect();
        for run in self.runs.iter_mut().filter(|run| !run.granted) {
            // What is left of the generation before: who died, left or was started again is not.
            run.held.retain(|member| living.contains(member));
        }
        for at in 0..self.runs.len() {
            if self.runs[at].granted {
                continue;
            }
            let taken = |member: &Member| {
                self.runs
                    .iter()
                    .enumerate()
                    .any(|(run, known)| run != at && known.held.iter().any(|held| held.id == member.id))
            };
            let free: Vec<Member> = living.iter().filter(|member| !taken(member)).cloned().collect();
            let run = &mut self.runs[at];
            let enough = living.len() >= run.request.least;
            run.short_since = if enough { None } else { Some(run.short_since.unwrap_or(now)) };
            match choose(&run.request, &run.held, free) {
                Some(members) => {
                    run.held = members;
                    run.granted = true;
                }
                None => break,
            }
        }
    }

    fn answer(&mut self, name: &str, now: Duration) -> LeaseAnswer {
        let have = self.living().count();
        let Some(at) = self.runs.iter().position(|run| run.request.run == name) else {
            return LeaseAnswer::Short { have };
        };
        let run = &self.runs[at];
        if run.granted {
            return LeaseAnswer::Granted { generation: run.request.generation, members: run.held.clone() };
        }
        let patience = Duration::from_millis(run.request.wait_ms);
        if run.short_since.is_some_and(|since| now.saturating_sub(since) >= patience) {
            self.release(name, now);
            return LeaseAnswer::Short { have };
        }
        LeaseAnswer::Waiting { ahead: at, have }
    }
}

/// The workers of a generation: those of the one before first, those to be avoided only if there are too few.
fn choose(request: &LeaseRequest, before: &[Member], free: Vec<Member>) -> Option<Vec<Member>> {
    let least = request.least.max(1);
    let preference = |member: &Member| match request.avoid.contains(&member.incarnation) {
        true => 2,
        false => usize::from(!before.contains(member)),
    };
    let mut members = free;
    members.sort_by_key(|member| (preference(member), member.id.clone()));
    let wanted = members.iter().filter(|member| preference(member) < 2).count().max(least).min(request.most.max(least));
    if members.len() < least {
        return None;
    }
    members.truncate(wanted);
    // Ranks do not follow from who survived: the same workers sit in the same order.
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str) -> Member {
        Member {
            id: id.to_string(),
            incarnation: format!("{id}-1"),
            host: "127.0.0.1".to_string(),
            port: 1,
            cores: 1,
            leaving: false,
        }
    }

    fn request(run: &str, least: usize, most: usize) -> LeaseRequest {
        LeaseRequest { run: run.into(), generation: 1, least, most, wait_ms: 10_000, avoid: Vec::new() }
    }

    /// A scheduler whose executors all live, and whose clock is set by the test.
    struct Office {
        leases: Leases,
        members: Vec<&'static str>,
        now: Duration,
    }

    impl Office {
        fn new(members: &[&'static str]) -> Self {
            let mut office = Office { leases: Leases::default(), members: members.to_vec(), now: Duration::ZERO };
            office.pass(0);
            office
        }

        /// Lets seconds pass, with the heartbeats that come in them.
        fn pass(&mut self, seconds: u64) {
            for second in 0..=seconds {
                self.now += Duration::from_secs(u64::from(second > 0));
                self.members.iter().for_each(|id| self.leases.heartbeat(member(id), self.now));
            }
        }

        fn ask(&mut self, request: &LeaseRequest) -> String {
            match self.leases.ask(request.clone(), self.now) {
                LeaseAnswer::Granted { generation, members } => {
                    let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
                    format!("{generation}: {}", ids.join(" "))
                }
                LeaseAnswer::Waiting { ahead, have } => format!("{ahead} ahead, have {have}"),
                LeaseAnswer::Short { have } => format!("short, have {have}"),
            }
        }
    }

    #[test]
    fn two_runs_queue_and_neither_holds_half() {
        let mut office = Office::new(&["a", "b", "c"]);
        let (first, second, third) = (request("1", 2, 2), request("2", 2, 3), request("3", 1, 1));
        assert_eq!(office.ask(&first), "1: a b");
        assert_eq!(office.ask(&second), "1 ahead, have 3");
        // There is one for the third, but the second came first.
        assert_eq!(office.ask(&third), "2 ahead, have 3");
        assert_eq!(office.leases.lent(office.now), ["a", "b"]);
        office.leases.release("1", office.now);
        assert_eq!(office.ask(&second), "1: a b c");
        office.leases.release("2", office.now);
        assert_eq!(office.ask(&third), "1: a");
    }

    #[test]
    fn more_than_there_are_is_told_after_the_wait() {
        let mut office = Office::new(&["a", "b"]);
        let many = request("1", 3, 3);
        for _ in 0..10 {
            assert_eq!(office.ask(&many), "0 ahead, have 2");
            office.pass(1);
        }
        assert_eq!(office.ask(&many), "short, have 2");
        assert_eq!(office.ask(&request("2", 2, 2)), "1: a b", "who gave up holds up nobody");
        // One that comes in time is enough.
        office.leases.release("2", office.now);
        assert_eq!(office.ask(&many), "0 ahead, have 2");
        office.members.push("c");
        office.pass(1);
        assert_eq!(office.ask(&many), "1: a b c");
    }

    #[test]
    fn a_run_that_waits_for_others_waits_as_long_as_they_work() {
        let mut office = Office::new(&["a"]);
        let (first, second) = (request("1", 1, 1), request("2", 1, 1));
        assert_eq!(office.ask(&first), "1: a");
        for _ in 0..60 {
            office.pass(1);
            assert_eq!(office.ask(&second), "1 ahead, have 1");
            assert_eq!(office.ask(&first), "1: a");
        }
    }

    #[test]
    fn what_a_vanished_coordinator_held_is_free() {
        let mut office = Office::new(&["a", "b"]);
        let (first, second) = (request("1", 2, 2), request("2", 2, 2));
        office.ask(&first);
        for _ in 0..5 {
            assert_eq!(office.ask(&second), "1 ahead, have 2");
            office.pass(1);
        }
        office.pass(1);
        assert_eq!(office.ask(&second), "1: a b");
        assert_eq!(office.ask(&first), "1 ahead, have 2", "it has to queue again");
    }

    #[test]
    fn the_next_generation_has_survivors_and_who_came_in_between() {
        let mut office = Office::new(&["a", "b", "c"]);
        let mut run = request("1", 3, 3);
        assert_eq!(office.ask(&run), "1: a b c");
        office.members = vec!["a", "c", "d"];
        for _ in 0..6 {
            office.pass(1);
            assert_eq!(office.ask(&run), "1: a b c", "a generation is not changed under its ranks");
        }
        (run.generation, run.least) = (2, 1);
        assert_eq!(office.ask(&run), "2: a c d");
        // Others wait, but who holds comes first.
        assert_eq!(office.ask(&request("2", 1, 1)), "1 ahead, have 3");
        office.members = vec!["c"];
        office.pass(6);
        run.generation = 3;
        assert_eq!(office.ask(&run), "3: c");
    }

    #[test]
    fn who_failed_is_avoided_while_there_are_others() {
        let mut office = Office::new(&["a", "b"]);
        let mut run = request("1", 2, 2);
        office.ask(&run);
        run = LeaseRequest { generation: 2, least: 1, avoid: vec!["a-1".into()], ..run };
        assert_eq!(office.ask(&run), "2: b");
        run = LeaseRequest { generation: 3, avoid: vec!["a-1".into(), "b-1".into()], ..run };
        assert_eq!(office.ask(&run), "0 ahead, have 0", "they may be dead");
        office.pass(1);
        assert_eq!(office.ask(&run), "3: a", "better than none");
        // One that is dead is not asked again, although its last heartbeat is not old.
        office.members = vec!["b"];
        run = LeaseRequest { generation: 4, avoid: vec!["a-1".into()], ..run };
        assert_eq!(office.ask(&run), "4: b");
        run = LeaseRequest { generation: 5, avoid: Vec::new(), ..run };
        assert_eq!(office.ask(&run), "5: b");
    }

    #[test]
    fn an_executor_that_leaves_takes_no_more_ranks() {
        let mut office = Office::new(&["b"]);
        office.leases.heartbeat(Member { leaving: true, ..member("a") }, office.now);
        assert_eq!(office.ask(&request("1", 1, 2)), "1: b");
        assert_eq!(office.leases.available(office.now), 1);
    }
}
