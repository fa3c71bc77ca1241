//! Clients of a balancer, each with a session of its own that counts up, that check each answer against
//! what they were told before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::Browser;

/// How many complaints are kept.
const KEPT_COUNT: usize = 5;

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answered requests.
    pub answered_count: u64,
    /// Requests without an answer, or with 5xx; each was asked again.
    pub failed_count: u64,
    /// Answers that the session, or its value, is unknown.
    pub lost_count: u64,
    /// Answers with another value than the last one told.
    pub stale_count: u64,
    /// The longest time from the first try of a request to its last that failed.
    pub longest_failing: Duration,
    /// From which node to which its cookie moved.
    pub moves: Vec<(String, String)>,
    /// The node that its cookie names.
    pub route: Option<String>,
    /// The first failures, as they were told.
    pub complaints: Vec<String>,
}

impl Seen {
    /// Adds what another client saw, but for its route.
    pub fn add(&mut self, other: &Self) {
        self.answered_count += other.answered_count;
        self.failed_count += other.failed_count;
        self.lost_count += other.lost_count;
        self.stale_count += other.stale_count;
        self.longest_failing = self.longest_failing.max(other.longest_failing);
        self.moves.extend_from_slice(&other.moves);
        for complaint in &other.complaints {
            self.complain(complaint.clone());
        }
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < KEPT_COUNT {
            self.complaints.push(what);
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    seen: Vec<Arc<Mutex<Seen>>>,
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Clients {
    /// Starts `count` clients of the balancer at `address`, each with a pause between its rounds of two
    /// requests.
    #[must_use]
    pub fn start(address: SocketAddr, count: usize, pause: Duration) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen: Vec<_> = (0..count).map(|_| Arc::new(Mutex::new(Seen::default()))).collect();
        let threads = seen.iter().map(|seen| {
            let client = Client {
                address,
                browser: Browser::default(),
                seen: Arc::clone(seen),
                ended: Arc::clone(&ended),
            };
            std::thread::spawn(move || client.live(pause))
        });
        let threads = threads.collect();
        Self { seen, threads, ended }
    }

    /// What each has seen since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Seen> {
        let take = |seen: &Arc<Mutex<Seen>>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let route = seen.route.clone();
            std::mem::replace(&mut *seen, Seen { route, ..Seen::default() })
        };
        self.seen.iter().map(take).collect()
    }

    /// How many have a session whose cookie names this node; those without one yet count for every
    /// node.
    #[must_use]
    pub fn routed_count(&self, node: &str) -> usize {
        let is_there = |seen: &&Arc<Mutex<Seen>>| {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.route.as_deref().is_none_or(|route| route == node)
        };
        self.seen.iter().filter(is_there).count()
    }

    /// How many answers there were since the last `take`, of the client that has the fewest.
    #[must_use]
    pub fn fewest_answers(&self) -> u64 {
        let answered = |seen: &Arc<Mutex<Seen>>| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).answered_count
        };
        self.seen.iter().map(answered).min().unwrap_or(0)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct Client {
    address: SocketAddr,
    browser: Browser,
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
}

impl Client {
    fn live(mut self, pause: Duration) {
        let mut told: Option<u64> = None;
        while !self.is_over() {
            if let Some(last) = told {
                let Some((status, body)) = self.ask("/app/s/get?k=n") else { break };
                if status == 200 && body != last.to_string() {
                    self.note(|seen| {
                        seen.stale_count += 1;
                        seen.complain(format!("{body} in the place of {last}"));
                    });
                } else if status != 200 {
                    self.note(|seen| {
                        seen.lost_count += 1;
                        seen.complain(format!("{status} {body} in the place of {last}"));
                    });
                }
            }
            let next = told.unwrap_or(0) + 1;
            // Asked again, it says the same: what a failed one did is no matter.
            let Some((status, body)) = self.ask(&format!("/app/s/set?k=n&v={next}")) else { break };
            if (status, body.as_str()) == (200, next.to_string().as_str()) {
                told = Some(next);
            } else {
                self.note(|seen| {
                    seen.lost_count += 1;
                    seen.complain(format!("{status} {body} after {next} was set"));
                });
            }
            std::thread::park_timeout(pause);
        }
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks until there is an answer that is no 5xx; nothing when all is over.
    fn ask(&mut self, path: &str) -> Option<(u16, String)> {
        let begun = Instant::now();
        loop {
            let complaint = match self.browser.get(self.address, path) {
                Ok(answer) if answer.status < 500 => {
                    let route = self.browser.session().and_then(|id| id.rsplit_once('.'));
                    let route = route.map(|(_, route)| route.to_owned());
                    self.note(|seen| {
                        seen.answered_count += 1;
                        if let (Some(was), Some(is)) = (&seen.route, &route)
                            && was != is
                        {
                            seen.moves.push((was.clone(), is.clone()));
                        }
                        seen.route = route.or(seen.route.take());
                    });
                    return Some((answer.status, answer.body));
                }
                Ok(answer) => format!("GET {path}: {} {}", answer.status, answer.body),
                Err(error) => error,
            };
            if self.is_over() {
                return None;
            }
            self.note(|seen| {
                seen.failed_count += 1;
                seen.longest_failing = seen.longest_failing.max(begun.elapsed());
                seen.complain(complaint);
            });
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}
