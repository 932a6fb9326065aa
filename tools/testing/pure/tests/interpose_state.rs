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
    /// One of the tops that leave has ended its last bio.
    Gone(prop::sample::Index),
    /// The last table has gone, whatever there is.
    Close,
    Suspend(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop_oneof![Just(Step::Attach), Just(Step::Switch), Just(Step::Detach)].prop_map(Event::Ask),
        2 => any::<prop::sample::Index>().prop_map(Event::Gone),
        1 => Just(Event::Close),
        1 => any::<bool>().prop_map(Event::Suspend),
    ]
}

fn leaving(state: &State<u32>) -> Vec<u32> {
    joined(state.leaving().copied().collect(), None)
}

fn joined(mut tops: Vec<u32>, one_more: Option<u32>) -> Vec<u32> {
    tops.extend(one_more);
    tops.sort();
    tops
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
                    let (current, before) = (state.current().copied(), leaving(&state));
                    let possible = !suspended && match step {
                        Step::Attach => current.is_none() && before.is_empty(),
                        Step::Switch => current.is_some() && before.is_empty(),
                        Step::Detach => current.is_some() == before.is_empty(),
                    };
                    prop_assert_eq!(state.check(step).is_ok(), possible);
                    if !possible {
                        continue;
                    }
                    if step == Step::Detach {
                        state.leave();
                        prop_assert_eq!(state.current(), None);
                        prop_assert_eq!(leaving(&state), joined(before, current));
                    } else {
                        state.lead(next);
                        open.push(next);
                        prop_assert_eq!(state.current(), Some(&next));
                        prop_assert_eq!(leaving(&state), joined(before, current));
                        next += 1;
                    }
                }
                Event::Gone(which) => {
                    let before = leaving(&state);
                    prop_assert_eq!(state.gone(|_| false), None);
                    if before.is_empty() {
                        prop_assert_eq!(state.gone(|_| true), None);
                        continue;
                    }
                    let idle = *which.get(&before);
                    prop_assert_eq!(state.gone(|top| *top == idle), Some(idle));
                    open.retain(|top| *top != idle);
                }
                Event::Close => {
                    let (current, before) = (state.current().copied(), leaving(&state));
                    state.leave();
                    prop_assert_eq!(state.current(), None);
                    prop_assert_eq!(leaving(&state), joined(before, current));
                }
                Event::Suspend(now) => {
                    suspended = now;
                    state.suspend(now);
                }
            }
            // No top is forgotten before it has gone, and none is there that has.
            prop_assert_eq!(&joined(leaving(&state), state.current().copied()), &open);
            prop_assert_eq!(state.is_leaving(), !leaving(&state).is_empty());
            let name = match (state.current().is_some(), state.is_leaving()) {
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
    assert_eq!(state.gone(|top| *top == 'a'), Some('a'));
    state.leave();
    assert_eq!(state.check(Step::Attach), Err(Refusal::Leaving));
    state.suspend(true);
    assert_eq!(state.check(Step::Detach), Err(Refusal::Suspended));
}
