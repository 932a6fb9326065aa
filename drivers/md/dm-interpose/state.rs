// SPDX-License-Identifier: GPL-2.0

//! What may follow what. Pure.
//!
//! ```text
//!            attach               switch: the old top is leaving
//!     idle ----------> attached ----------+
//!      ^                  |   ^           |
//!      |           detach |   | gone      v
//!      |                  v   +------ detaching   one is attached, another leaves
//!      +------------- detaching
//!            gone                 none is attached, one leaves
//! ```
//!
//! A top is *leaving* from the moment when no more bios are led to it until the last one has ended.
//! That is mostly within one message, and takes longer when a top is slow or suspended: then the
//! message fails, and the state is reached by itself later. There is no way back from leaving.
//!
//! When the last table goes, what is attached leaves, although another may be leaving already. So
//! there can be two of them, of which the one does not wait for the other.

use core::fmt;

/// How many tops can be leaving at a time.
const ROOM: usize = 2;

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Lead bios to a top, with none before.
    Attach,
    /// Lead bios to another top.
    Switch,
    /// Lead bios to no top any more.
    Detach,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Attach => "attach",
            Step::Switch => "switch",
            Step::Detach => "detach",
        })
    }
}

/// Why a step is not possible now: displays as a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Something is attached.
    Attached,
    /// Nothing is attached.
    NotAttached,
    /// A top has not left yet.
    Leaving,
    /// The `interpose` device is suspended, or about to be.
    Suspended,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Attached => "a device is attached already; `switch' replaces it",
            Refusal::NotAttached => "no device is attached",
            Refusal::Leaving => "the device that was attached has I/O in flight still",
            Refusal::Suspended => "suspended; resume first",
        })
    }
}

/// The names of the states, as the status has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// Nothing is attached.
    Idle,
    /// A device is being attached.
    Attaching,
    /// A device is attached.
    Attached,
    /// A device is attached no more, but has I/O in flight.
    Detaching,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Idle => "idle",
            Name::Attaching => "attaching",
            Name::Attached => "attached",
            Name::Detaching => "detaching",
        })
    }
}

/// The tops of an original, `T` being a top.
pub struct State<T> {
    current: Option<T>,
    /// Those that are leaving; not in any order.
    leaving: [Option<T>; ROOM],
    suspended: bool,
}

impl<T> State<T> {
    /// Idle.
    pub const fn new() -> Self {
        State {
            current: None,
            leaving: [const { None }; ROOM],
            suspended: false,
        }
    }

    /// Whether a step is possible.
    pub fn check(&self, step: Step) -> Result<(), Refusal> {
        if self.suspended {
            return Err(Refusal::Suspended);
        }
        match (step, &self.current, self.is_leaving()) {
            (Step::Attach, Some(_), _) => Err(Refusal::Attached),
            (Step::Switch, None, false) => Err(Refusal::NotAttached),
            (Step::Attach | Step::Switch, _, true) => Err(Refusal::Leaving),
            // To be waited for once more.
            (Step::Detach, None, true) => Ok(()),
            (Step::Detach, Some(_), true) => Err(Refusal::Leaving),
            (Step::Detach, None, false) => Err(Refusal::NotAttached),
            _ => Ok(()),
        }
    }

    /// Bios are led to `top` now, and to no other. The one before is leaving: no other is, as
    /// [`check`](Self::check) says.
    pub fn lead(&mut self, top: T) {
        self.leave();
        self.current = Some(top);
    }

    /// Bios are led to no top now. The one before is leaving, also where another is leaving still.
    pub fn leave(&mut self) {
        // Where one is attached, one other is leaving at most: that in whose place it came.
        if let Some(room) = self.leaving.iter_mut().find(|room| room.is_none()) {
            *room = self.current.take();
        }
    }

    /// The tops that leave.
    pub fn leaving(&self) -> impl Iterator<Item = &T> {
        self.leaving.iter().flatten()
    }

    /// Whether there is a top that leaves.
    pub fn is_leaving(&self) -> bool {
        self.leaving().next().is_some()
    }

    /// A top that has left has gone: any of them, if there is one.
    pub fn gone(&mut self, has_left: impl Fn(&T) -> bool) -> Option<T> {
        let mut rooms = self.leaving.iter_mut();
        rooms.find_map(|room| room.take_if(|top| has_left(top)))
    }

    /// The top that bios are led to.
    pub fn current(&self) -> Option<&T> {
        self.current.as_ref()
    }

    /// Steps are not possible from now on, or again.
    pub fn suspend(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// The name of this state.
    pub fn name(&self) -> Name {
        match (&self.current, self.is_leaving()) {
            (_, true) => Name::Detaching,
            (Some(_), false) => Name::Attached,
            (None, false) => Name::Idle,
        }
    }
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self::new()
    }
}
