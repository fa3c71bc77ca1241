//! What a history is made of: faults by name, and the scene they happen in. All of it is drawn from
//! the seed, and all of it can be set by name, so that one line replays a history or a smaller one.

use ringtribe::shared::Planted;

use super::random::Random;

/// A set of numbers that have names on the command line.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
            /// Names and values.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }

            /// Sets a value by name; false if there is no such name.
            #[must_use]
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($field) => self.$field = value,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

named! {
    /// How unkind a history is. Chances per thousand, of what each field says.
    Faults {
        /// A send: the connection is lost somewhere inside it.
        lose_connection,
        /// A heartbeat to one member is lost.
        lose_datagram,
        /// A heartbeat comes up to a second late.
        late_datagram,
        /// A heartbeat comes twice.
        double_datagram,
        /// A connection: what is sent takes up to 150 ms.
        slow_link,
        /// A connection: the kernel holds 300 or 4,000 bytes of it.
        small_room,
        /// A read or write takes a part only.
        short_io,
        /// A read finds no buffer and is tried again later.
        no_buffers,
        /// A send fails late, and nothing of it was taken.
        fail_send,
        /// An attempt to connect gets no answer in time.
        fail_connect,
        /// A connection is closed up to half a second late.
        late_close,
        /// A send that is cancelled was taken in part nevertheless.
        race_cancel,
        /// A tenth of a second of the storm: nothing goes from one node to another for a while.
        one_way,
        /// The same: the nodes fall into two parts for a while.
        partition,
        /// The same: a node stands still for less than mcastDropTime.
        pause,
        /// The same: a node stands still for up to three times mcastDropTime.
        long_pause,
        /// The same: an application takes nothing, for up to eight times ackTimeout.
        hang,
        /// The same: a node crashes.
        crash,
        /// A crash: with its host, so that nobody is told.
        silent_crash,
        /// A crash: nobody comes back at its address.
        crash_for_good,
        /// A tenth of a second of the storm: a node leaves in order, and comes back.
        leave,
        /// The same: a node's clock jumps ahead.
        clock_jump,
        /// A node: its clock is up to 3 % off.
        clock_drift,
        /// A listener that fails.
        fail_listener,
        /// A listener that takes long.
        slow_listener,
        /// A message to a stock member: it is not answered.
        stock_silence,
        /// A message to or from a stock member: its connection is closed behind it.
        stock_close,
    }
}

named! {
    /// Who plays, and what is sent.
    Scene {
        /// Members, the stock ones included.
        members,
        /// Stock members among them.
        stock,
        /// Workers of each.
        workers,
        /// 0: Ringtribe nodes speak the own format; 1: Tribes; 2: the last one does not speak it;
        /// 3: they say so late, and change over from Tribes.
        formats,
        /// Length of the storm, in which messages are sent and faults happen.
        storm_ms,
        /// ackTimeout.
        ack_timeout_ms,
        /// mcastFrequency.
        frequency_ms,
        /// mcastDropTime.
        drop_time_ms,
        /// poolSize.
        pool_size,
        /// maxQueueSize.
        max_queue_bytes,
        /// maxReceiveBytes.
        max_receive_bytes,
        /// maxMessageBytes.
        max_message_bytes,
        /// A node submits once in this time.
        submit_gap_us,
        /// Keys; the first are hotter.
        keys,
        /// Longest payload of those that are long.
        long_bytes,
        /// Messages of a thousand that are long.
        long,
        /// Pollers of each node.
        pollers,
        /// Messages of a thousand that ask for a reply.
        requests,
        /// Listeners of a thousand that ask somebody and wait for the reply.
        waiting_listeners,
        /// Nodes of a thousand that start in the middle of the storm.
        newcomers,
    }
}

/// Ringtribe nodes that change over from Tribes to the own format.
pub(super) const CHANGING: u64 = 3;

/// Everything about one history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The one source of chance.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Where.
    pub scene: Scene,
    /// A bug that is planted.
    pub planted: Option<Planted>,
    /// Whether to write down what happens.
    pub trace: bool,
}

impl Faults {
    /// A kind network.
    pub const NONE: Self = Self {
        lose_connection: 0,
        lose_datagram: 0,
        late_datagram: 0,
        double_datagram: 0,
        slow_link: 0,
        small_room: 0,
        short_io: 0,
        no_buffers: 0,
        fail_send: 0,
        fail_connect: 0,
        late_close: 0,
        race_cancel: 0,
        one_way: 0,
        partition: 0,
        pause: 0,
        long_pause: 0,
        hang: 0,
        crash: 0,
        silent_crash: 0,
        crash_for_good: 0,
        leave: 0,
        clock_jump: 0,
        clock_drift: 0,
        fail_listener: 0,
        slow_listener: 0,
        stock_silence: 0,
        stock_close: 0,
    };

    /// Whether nothing goes wrong that a member could notice.
    #[must_use]
    pub fn is_none(&self) -> bool {
        // What is only slow or short breaks nothing.
        let harmless = Self {
            slow_link: self.slow_link,
            small_room: self.small_room,
            short_io: self.short_io,
            no_buffers: self.no_buffers,
            late_close: self.late_close,
            race_cancel: self.race_cancel,
            double_datagram: self.double_datagram,
            slow_listener: self.slow_listener,
            ..Self::NONE
        };
        *self == harmless
    }

    /// Whether nothing goes wrong but that applications take nothing for a while.
    #[must_use]
    pub fn only_hangs(&self) -> bool {
        self.hang > 0 && Self { hang: 0, ..*self }.is_none()
    }

    /// Whether a host that is reached gives the end of a lost connection to who reads it at once: the
    /// Tribes format relies on that, since it has no numbers.
    #[must_use]
    pub const fn ends_are_told(&self) -> bool {
        self.slow_link
            + self.no_buffers
            + self.one_way
            + self.partition
            + self.pause
            + self.long_pause
            + self.silent_crash
            + self.late_close
            + self.clock_jump
            == 0
    }

    /// What a seed asks for: a fifth of the histories is kind, a fifth has one kind of fault, the
    /// others have a mix of their own.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xfa17_5eed);
        let mut faults = KIND;
        let chosen = random.index(MOST.len());
        // What the Tribes format promises only where ends are told has to be looked for there.
        let share = if Scene::of(seed).formats == 0 { 200 } else { 700 };
        let told = seed % 5 == 2 || random.chance(share);
        for (place, (name, often, most)) in MOST.iter().enumerate() {
            let wanted = match seed % 5 {
                0 => false,
                1 => place == chosen,
                _ => random.chance(*often) && !(told && UNTOLD.contains(name)),
            };
            let value = random.between(1.max(most / 10), *most);
            if wanted {
                let _ = faults.set(name, value);
            }
        }
        if faults.crash > 0 {
            faults.silent_crash = if told { 0 } else { random.below(300) };
            faults.crash_for_good = random.below(200);
        }
        match seed % 5 {
            0 => {}
            1 if random.chance(100) => {
                faults = Self { hang: random.between(10, 80), ..KIND };
            }
            1 => {}
            _ if random.chance(100) => faults.hang = random.between(5, 50),
            _ => {}
        }
        faults
    }
}

/// What every history has, and some have nothing else.
const KIND: Faults = Faults { short_io: 200, small_room: 500, slow_listener: 20, ..Faults::NONE };

/// Faults that are drawn: in how many histories of a thousand, and how often at most.
const MOST: [(&str, u64, u64); 23] = [
    ("lose_connection", 500, 60),
    ("lose_connection", 500, 20),
    ("lose_datagram", 300, 150),
    ("late_datagram", 300, 100),
    ("double_datagram", 300, 100),
    ("slow_link", 300, 300),
    ("no_buffers", 300, 100),
    ("fail_send", 300, 30),
    ("fail_connect", 300, 200),
    ("late_close", 300, 300),
    ("race_cancel", 300, 500),
    ("one_way", 300, 60),
    ("partition", 300, 60),
    ("pause", 300, 80),
    ("long_pause", 300, 40),
    ("crash", 300, 80),
    ("leave", 300, 50),
    ("clock_jump", 300, 40),
    ("clock_drift", 300, 1000),
    ("fail_listener", 300, 100),
    ("slow_listener", 300, 100),
    ("stock_silence", 300, 50),
    ("stock_close", 300, 50),
];

/// Faults under which the end of a lost connection may come late.
const UNTOLD: [&str; 8] = [
    "slow_link",
    "no_buffers",
    "one_way",
    "partition",
    "pause",
    "long_pause",
    "late_close",
    "clock_jump",
];

impl Scene {
    /// What a seed asks for: most clusters are small, few large.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5ce_4e00);
        let members = match random.below(100) {
            0..=14 => 2,
            15..=64 => 3,
            65..=79 => 4,
            80..=89 => 5,
            90..=95 => random.between(6, 9),
            96..=98 => random.between(10, 16),
            _ => random.between(17, 32),
        };
        let is_large = members > 5;
        let formats = [0, 0, 1, 2][random.index(4)];
        let stock = if random.chance(150) { random.between(1, (members - 1).min(2)) } else { 0 };
        let ack_timeout_ms = [600, 1_200, 2_500][random.index(3)];
        let drop_time_ms = [500, 1_000, 1_000][random.index(3)] * if is_large { 2 } else { 1 };
        let small = random.chance(150);
        // So that a large cluster's history takes no longer than a small one's.
        let links = members * (members - 1);
        Self {
            members,
            stock,
            workers: [1, 2, 2, 2, 3, 6][random.index(6)],
            formats,
            storm_ms: (24_000 / links).clamp(700, 3_000),
            ack_timeout_ms,
            frequency_ms: drop_time_ms / 5,
            drop_time_ms,
            pool_size: [2, 6, 6, 12][random.index(4)],
            max_queue_bytes: [20_000, 300_000, 300_000, 2_000_000][random.index(4)],
            max_receive_bytes: [20_000, 200_000, 200_000, 2_000_000][random.index(4)],
            max_message_bytes: if small { 3_000 } else { 1_000_000 },
            submit_gap_us: [4_000, 10_000, 10_000, 30_000][random.index(4)] * links / 6,
            keys: [1, 5, 5, 50][random.index(4)],
            long_bytes: if small { 3_000 } else { [20_000, 100_000, 300_000][random.index(3)] },
            long: [0, 50, 50, 200][random.index(4)],
            pollers: [1, 2, 4, 4][random.index(4)],
            requests: [0, 0, 50, 200][random.index(4)],
            waiting_listeners: [0, 0, 0, 100][random.index(4)],
            newcomers: [0, 0, 200][random.index(3)],
        }
    }

    /// Whether the format is Ringtribe's own between two members.
    #[must_use]
    pub(super) const fn is_own(&self, one: usize, other: usize) -> bool {
        self.formats != CHANGING && self.speaks_own(one) && self.speaks_own(other)
    }

    /// Whether a member speaks the own format.
    #[must_use]
    pub(super) const fn speaks_own(&self, node: usize) -> bool {
        if self.is_stock(node) {
            return false;
        }
        match self.formats {
            0 | CHANGING => true,
            1 => false,
            _ => (node as u64) + 1 < self.members - self.stock,
        }
    }

    /// Stock members are the last.
    #[must_use]
    pub(super) const fn is_stock(&self, node: usize) -> bool {
        node as u64 >= self.members - self.stock
    }
}

impl Plan {
    /// The history of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let (faults, scene) = (Faults::of(seed), Scene::of(seed));
        Self { seed, faults, scene, planted: None, trace: false }
    }

    /// Sets a fault or a part of the scene by name; false if there is no such name.
    #[must_use]
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        self.faults.set(name, value) || self.scene.set(name, value)
    }

    /// What differs from [`Plan::of`] the seed, as options of the program, and the whole line.
    #[must_use]
    pub fn replay_line(&self) -> String {
        let usual = Self::of(self.seed);
        let mut line = format!(
            "cargo run --release -p ringtribe-tests --bin sim -- --start {} --seeds 1",
            self.seed
        );
        if let Some(bug) = self.planted {
            line += &format!(" --planted {bug:?}");
        }
        let values = |plan: &Self| [plan.faults.list(), plan.scene.list()].concat();
        for ((name, value), (_, usual)) in values(self).into_iter().zip(values(&usual)) {
            if value != usual {
                line += &format!(" --set {name}={value}");
            }
        }
        line
    }

    /// Faults and scene by name, without what is zero.
    #[must_use]
    pub fn describe(&self) -> String {
        let list = |values: Vec<(&str, u64)>| {
            let values = values.into_iter().filter(|(_, value)| *value > 0);
            values.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        format!("faults: {}; scene: {}", list(self.faults.list()), list(self.scene.list()))
    }
}
