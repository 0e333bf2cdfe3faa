//! Every reachable state of a case, by [`stateright`].

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    case::Case,
    machine::{Action, Machine},
    variant::Variant,
    world::World,
};

/// A state from which nothing but helping steps does not end within so many is called stuck.
const STEPS_MAX: usize = 1_000;
const SAFE: &str = "safe";
const CAN_FINISH: &str = "can finish";

/// What a check found.
#[derive(Debug)]
pub struct Checked {
    /// Distinct states.
    pub states: usize,
    /// The longest of the paths to them, in steps.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether that is all of them, if no promise is broken.
    pub is_complete: bool,
    /// A broken promise, if any.
    pub violation: Option<Violation>,
}

/// A broken promise, and the way there.
#[derive(Debug)]
pub struct Violation {
    /// Which promise.
    pub what: String,
    /// Step by step.
    pub trace: Vec<String>,
}

/// Visits every reachable state of a case, with its rules as they are shipped or with one of them broken; stops at the first
/// broken promise.
#[must_use]
pub fn check(
    case: &Case,
    variant: Option<Variant>,
    promises: Promises,
    threads: usize,
    limit: Option<Duration>,
) -> Checked {
    let started = Instant::now();
    let builder = Search::new(case, variant, promises)
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures);
    let builder = match limit {
        Some(limit) => builder.timeout(limit),
        None => builder,
    };
    let checker = builder.spawn_bfs().join();
    let violation = checker.discoveries().into_iter().next().map(|(name, path)| {
        let last = path.last_state().clone();
        let what = match checker.model().machine.fault(&last) {
            Some(bad) => format!("{bad:?}"),
            None => name.to_owned(),
        };
        let steps = path.into_vec().into_iter();
        let mut trace: Vec<String> = steps
            .filter_map(|(_, action)| action)
            .map(|action| format!("{action:?}"))
            .collect();
        trace.push(format!("{last:?}"));
        Violation { what, trace }
    });
    Checked {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_complete: limit.is_none_or(|limit| started.elapsed() < limit),
        took: started.elapsed(),
        violation,
    }
}

/// Which promises are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promises {
    /// All of them.
    All,
    /// The amounts: nothing is counted or reported twice, lost, or billed to somebody else.
    Amounts,
    /// That every state can finish.
    Finishing,
}

struct Search {
    machine: Machine,
    promises: Promises,
    finishing: Finishing,
}

impl Search {
    fn new(case: &Case, variant: Option<Variant>, promises: Promises) -> Self {
        Self {
            promises,
            machine: Machine::new(case, variant),
            finishing: Finishing::default(),
        }
    }
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.machine.start()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.machine.actions(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let next = self.machine.next(world, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(SAFE, |search: &Self, world: &World| search.machine.is_safe(world)),
            Property::always(CAN_FINISH, |search: &Self, world: &World| {
                world.bad.is_some() || search.finishing.can_finish(&search.machine, world)
            }),
        ];
        properties.retain(|property| match self.promises {
            Promises::All => true,
            Promises::Amounts => property.name == SAFE,
            Promises::Finishing => property.name == CAN_FINISH,
        });
        properties
    }
}

/// From which states everything can still be brought to an end.
///
/// `stateright` knows "always" and "eventually", not "always possible". So the way to an end is walked: the helping steps
/// (nothing is lost, nobody dies, time passes) from a state to a settled one are a witness that it can finish, and so can every
/// state on the way. Each is walked once.
#[derive(Default)]
struct Finishing {
    good: [Mutex<HashSet<u64, BuildHasherDefault<Identity>>>; 32],
}

impl Finishing {
    fn can_finish(&self, machine: &Machine, from: &World) -> bool {
        let mut way = Vec::new();
        let mut world = from.clone();
        loop {
            let print = BuildHasherDefault::<DefaultHasher>::default().hash_one(&world);
            if self.is_good(print) || machine.is_settled(&world) {
                way.push(print);
                break;
            }
            way.push(print);
            if way.len() > STEPS_MAX {
                return false;
            }
            match machine.helping(&world) {
                Some(action) => world = machine.next(&world, action),
                None => return false,
            }
        }
        for print in way {
            self.shard(print).insert(print);
        }
        true
    }

    fn is_good(&self, print: u64) -> bool {
        self.shard(print).contains(&print)
    }

    fn shard(&self, print: u64) -> std::sync::MutexGuard<'_, HashSet<u64, BuildHasherDefault<Identity>>> {
        let shard = usize::try_from(print % 32).unwrap_or(0);
        self.good[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print.rotate_left(32);
    }
}
