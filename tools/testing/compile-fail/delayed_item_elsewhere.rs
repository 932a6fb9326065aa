// SPDX-License-Identifier: GPL-2.0

//! A queue does not wait for a timer: an item that is to run later is on the queue of its own value.
//!
//! error[E0277]: HasQueue` is not satisfied

include!("common/frame.rs");

use kernel::{
    new_delayed_work,
    sync::Arc,
    workqueue::{
        impl_has_delayed_work,
        DelayedWork,
        WorkItem, //
    }, //
};

#[pin_data]
struct Homeless {
    #[pin]
    timer: DelayedWork<Homeless>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Homeless> for Homeless { self.timer }
}

impl WorkItem for Homeless {
    type Pointer = Arc<Homeless>;

    fn run(_: Arc<Homeless>) {}
}

pub fn start() -> Result<Arc<Homeless>> {
    let this = Arc::pin_init(
        pin_init!(Homeless {
            timer <- new_delayed_work!("timer"),
        }),
        GFP_KERNEL,
    )?;
    let _ = OwnedQueue::enqueue_delayed(this.clone(), 10);
    Ok(this)
}
