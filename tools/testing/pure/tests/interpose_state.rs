// SPDX-License-Identifier: GPL-2.0

//! The states of an original: what may follow what, against what must hold in any order of steps.

use proptest::prelude::*;
use pure::interpose::state::{
    Name,
    Refusal,
    State,
    Step, //
};

#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(Step),
    /// The top that leaves has ended its last bio.
    Gone,
    Suspend(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop_oneof![Just(Step::Attach), Just(Step::Switch), Just(Step::Detach)].prop_map(Event::Ask),
        2 => Just(Event::Gone),
        1 => any::<bool>().prop_map(Event::Suspend),
    ]
}

proptest! {
    /// Tops are numbered: a later one has a higher number.
    #[test]
    fn a_top_that_left_never_comes_back(events in prop::collection::vec(event(), 0..60)) {
        let mut state = State::new();
        let mut next = 0;
        let mut suspended = false;
        let mut open: Vec<u32> = Vec::new();
        for event in events {
            match event {
                Event::Ask(step) => {
                    let (current, leaving) = (state.current().copied(), state.leaving().copied());
                    let possible = !suspended && match step {
                        Step::Attach => current.is_none() && leaving.is_none(),
                        Step::Switch => current.is_some() && leaving.is_none(),
                        Step::Detach => current.is_some() != leaving.is_some(),
                    };
                    prop_assert_eq!(state.check(step).is_ok(), possible);
                    if !possible {
                        continue;
                    }
                    if step == Step::Detach {
                        state.leave();
                        prop_assert_eq!(state.current(), None);
                        prop_assert_eq!(state.leaving().copied(), current.or(leaving));
                    } else {
                        state.lead(next);
                        open.push(next);
                        prop_assert_eq!(state.current(), Some(&next));
                        prop_assert_eq!(state.leaving().copied(), current);
                        next += 1;
                    }
                }
                Event::Gone => {
                    let leaving = state.leaving().copied();
                    let gone = state.gone();
                    prop_assert_eq!(gone, leaving);
                    open.retain(|top| Some(*top) != gone);
                }
                Event::Suspend(now) => {
                    suspended = now;
                    state.suspend(now);
                }
            }
            // No top is forgotten before it has gone, and none is there that has.
            let mut held: Vec<u32> = state.leaving().into_iter().chain(state.current()).copied().collect();
            held.sort();
            prop_assert_eq!(&held, &open);
            let name = match (state.current().is_some(), state.leaving().is_some()) {
                (_, true) => Name::Detaching,
                (true, false) => Name::Attached,
                (false, false) => Name::Idle,
            };
            prop_assert_eq!(state.name(), name);
        }
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let mut state = State::new();
    assert_eq!(state.check(Step::Switch), Err(Refusal::NotAttached));
    assert_eq!(state.check(Step::Detach), Err(Refusal::NotAttached));
    state.lead('a');
    assert_eq!(state.check(Step::Attach), Err(Refusal::Attached));
    state.lead('b');
    assert_eq!(state.check(Step::Switch), Err(Refusal::Leaving));
    assert_eq!(state.check(Step::Detach), Err(Refusal::Leaving));
    assert_eq!(state.gone(), Some('a'));
    state.leave();
    assert_eq!(state.check(Step::Attach), Err(Refusal::Leaving));
    state.suspend(true);
    assert_eq!(state.check(Step::Detach), Err(Refusal::Suspended));
}
