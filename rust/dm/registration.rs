// SPDX-License-Identifier: GPL-2.0

//! Announces a [`Target`] to device-mapper, and translates its calls.
//!
//! The functions here carry no policy: each turns pointers into references, calls the trait, and
//! turns the answer back.
//!
//! ```ignore
//! #[pin_data]
//! struct ExampleModule {
//!     #[pin]
//!     _registration: Registration<Example>,
//! }
//!
//! impl kernel::InPlaceModule for ExampleModule {
//!     fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
//!         try_pin_init!(ExampleModule { _registration <- Registration::new(module, ()) }? Error)
//!     }
//! }
//! ```

use crate::{
    args::Args,
    bindings,
    ctr::{
        Ctr,
        CtrError, //
    },
    device::{
        Anchor,
        Device, //
    },
    end_io::{
        EndBio,
        Verdict, //
    },
    limits::Limits,
    map::{
        make_target_relative,
        MapBio, //
    },
    per_bio::Slot,
    shared::Owner,
    status::{
        StatusKind,
        StatusWriter, //
    },
    target::{
        Reply,
        Target, //
    }, //
};
use core::{
    ops::{
        ControlFlow,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    types::Opaque, //
};

/// A target type, known to device-mapper as long as this value lives. Keep it in the module's own
/// struct, which is dropped when the module is unloaded; device-mapper holds a reference to the
/// module while a table uses the target.
///
/// # Invariants
///
/// `target_type` is registered, and is a field of a `Registration<T>` of the same `T`.
#[pin_data(PinnedDrop)]
pub struct Registration<T: Target> {
    #[pin]
    target_type: Opaque<bindings::target_type>,
    global: T::Global,
}

// SAFETY: The C side locks its list of target types itself.
unsafe impl<T: Target> Send for Registration<T> {}
// SAFETY: As above; nothing can be done through a shared reference.
unsafe impl<T: Target> Sync for Registration<T> {}

impl<T: Target> Registration<T> {
    /// Registers the target. Fails with `EBUSY` if there is one of that name already. May sleep.
    pub fn new(module: &'static ThisModule, global: T::Global) -> impl PinInit<Self, Error> {
        // The fields are initialised in this order: a table may be loaded as soon as the target
        // is registered.
        try_pin_init!(Self {
            global,
            target_type <- Opaque::try_ffi_init(move |slot: *mut bindings::target_type| {
                // SAFETY: The slot is valid for writing.
                unsafe { slot.write(target_type::<T>(module)) };
                // SAFETY: The target type is complete, and stays where it is until it is
                // unregistered, since it is pinned.
                to_result(unsafe { bindings::dm_register_target(slot) })
            }),
        })
    }
}

#[pinned_drop]
impl<T: Target> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the target type is registered.
        unsafe { bindings::dm_unregister_target(self.target_type.get()) }
    }
}

fn target_type<T: Target>(module: &'static ThisModule) -> bindings::target_type {
    let needs_end_io = T::HAS_END_IO || core::mem::needs_drop::<T::PerBio>();

    bindings::target_type {
        features: T::FEATURES.to_raw(),
        name: T::NAME.as_char_ptr(),
        module: module.as_ptr(),
        version: T::VERSION,
        ctr: Some(ctr::<T>),
        dtr: Some(dtr::<T>),
        map: Some(map::<T>),
        end_io: needs_end_io.then_some(end_io::<T>),
        presuspend: T::HAS_PRESUSPEND.then_some(presuspend::<T>),
        presuspend_undo: T::HAS_PRESUSPEND_UNDO.then_some(presuspend_undo::<T>),
        postsuspend: T::HAS_POSTSUSPEND.then_some(postsuspend::<T>),
        preresume: T::HAS_PRERESUME.then_some(preresume::<T>),
        resume: T::HAS_RESUME.then_some(resume::<T>),
        status: T::HAS_STATUS.then_some(status::<T>),
        message: T::HAS_MESSAGE.then_some(message::<T>),
        iterate_devices: T::HAS_ITERATE_DEVICES.then_some(iterate_devices::<T>),
        io_hints: T::HAS_IO_HINTS.then_some(io_hints::<T>),
        ..Default::default()
    }
}

/// What `ti->private` points at.
///
/// The order of the fields is that of their end: first the target, with its devices and handles,
/// then the anchor, which waits for those that have gone elsewhere.
#[pin_data]
struct Instance<T: Target> {
    #[pin]
    target: T,
    _anchor: Option<Owner<Anchor>>,
}

/// # Safety
///
/// `ti` must be a target that `ctr::<T>` has made and `dtr::<T>` not yet destroyed, for `'a`.
unsafe fn target<'a, T: Target>(ti: *mut bindings::dm_target) -> &'a T {
    // SAFETY: The caller promises a valid target.
    let instance = unsafe { (*ti).private }.cast::<Instance<T>>();
    // SAFETY: `ctr` stored an `Instance<T>`, which nobody borrows mutably.
    unsafe { &(*instance).target }
}

/// # Safety
///
/// Called by device-mapper, with `argc` words in `argv`.
unsafe extern "C" fn ctr<T: Target>(
    ti: *mut bindings::dm_target,
    argc: c_uint,
    argv: *mut *mut c_char,
) -> c_int {
    // SAFETY: Device-mapper passes a valid target under construction and its words.
    match unsafe { construct::<T>(ti, argc, argv) } {
        Ok(()) => 0,
        Err(error) => {
            // SAFETY: As above; the message is static.
            unsafe { (*ti).error = error.message.as_char_ptr().cast_mut() };
            error.errno.to_errno()
        }
    }
}

/// # Safety
///
/// As for [`ctr`].
unsafe fn construct<T: Target>(
    ti: *mut bindings::dm_target,
    argc: c_uint,
    argv: *mut *mut c_char,
) -> Result<(), CtrError> {
    let internal = |errno| CtrError::new(errno, c"Cannot allocate target");
    let ti = NonNull::new(ti).ok_or(internal(EINVAL))?;

    // SAFETY: The target is valid until `dtr` returns, which drops the anchor's owner; when the
    // construction fails, the owner is dropped here.
    let anchor = Owner::pin_init::<core::convert::Infallible>(unsafe { Anchor::new(ti) })
        .map_err(internal)?;
    let handle = anchor.share();
    // Dropped after all that follows, whatever fails: it waits for the handles in there.
    let mut anchor = Some(anchor);

    // SAFETY: The target is ours during its construction.
    let raw = unsafe { &mut *ti.as_ptr() };
    raw.per_io_data_size = Slot::<T>::SIZE as c_uint;

    // SAFETY: The target's type is the field of a registration, by the latter's type invariants.
    let registration = unsafe {
        kernel::container_of!(Opaque::cast_from(raw.type_), Registration<T>, target_type)
    };
    // SAFETY: The registration lives at least as long as the module, which is held during a `ctr`.
    let global = unsafe { &(*registration).global };
    // SAFETY: The target is being constructed, and the anchor is its own.
    let mut ctr = unsafe { Ctr::from_raw(ti, handle, global) };
    // SAFETY: The caller promises `argc` words, which live during this call.
    let mut args = unsafe { Args::from_raw(argc, argv) };
    let target = T::ctr(&mut ctr, &mut args)?;

    let owner = &mut anchor;
    let instance = KBox::try_pin_init(
        try_pin_init!(Instance {
            target <- target,
            _anchor: owner.take(),
        }? Error),
        GFP_KERNEL,
    )
    .map_err(|errno| CtrError::new(errno, c"Cannot initialise target"))?;
    // SAFETY: The instance stays where it is until `dtr` makes it a pinned box again.
    let instance = KBox::into_raw(unsafe { Pin::into_inner_unchecked(instance) });
    // SAFETY: The target is ours during its construction.
    unsafe { (*ti.as_ptr()).private = instance.cast() };
    Ok(())
}

/// # Safety
///
/// Called by device-mapper, once for each `ctr` that succeeded, when no other call is under way.
unsafe extern "C" fn dtr<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: The target is valid.
    let instance = unsafe { (*ti).private }.cast::<Instance<T>>();
    // SAFETY: `ctr` got the pointer from a pinned box, and nobody uses it any more.
    drop(unsafe { Pin::new_unchecked(KBox::from_raw(instance)) });
}

/// # Safety
///
/// Called by device-mapper with a clone that it has made for this target.
unsafe extern "C" fn map<T: Target>(
    ti: *mut bindings::dm_target,
    bio: *mut bindings::bio,
) -> c_int {
    // SAFETY: The clone's slot is reserved for us and not initialised yet.
    let slot = unsafe { Slot::<T>::init(bio) };
    // SAFETY: The target is valid, and the clone is for it.
    unsafe { make_target_relative(bio, (*ti).begin) };
    // SAFETY: The clone is being mapped, its slot is initialised, and its sector is relative. The
    // brand is that of this call's scope.
    let bio = unsafe { MapBio::from_raw(bio, slot) };
    // SAFETY: The target was made by `ctr::<T>`.
    unsafe { target::<T>(ti) }.map(bio).into_raw()
}

/// # Safety
///
/// Called by device-mapper with a clone that this target has mapped, when it is done.
unsafe extern "C" fn end_io<T: Target>(
    ti: *mut bindings::dm_target,
    bio: *mut bindings::bio,
    error: *mut bindings::blk_status_t,
) -> c_int {
    // SAFETY: The clone is one for `T`.
    let slot = unsafe { Slot::<T>::of(bio) };
    // SAFETY: `map` has initialised the slot, and nobody else holds the bio.
    let ended = unsafe { (*slot).ended };

    let verdict = if T::HAS_END_IO && !ended {
        // SAFETY: The bio is done, its slot is initialised; the brand is this call's scope.
        let bio = unsafe { EndBio::from_raw(bio, slot) };
        // SAFETY: The target was made by `ctr::<T>`.
        unsafe { target::<T>(ti) }.end_io(bio).verdict
    } else {
        Verdict::Done
    };

    match verdict {
        // A bio that was kept may have ended meanwhile, so it must not be touched.
        Verdict::Kept => {}
        Verdict::Done | Verdict::Requeue => {
            // SAFETY: Device-mapper frees the clone next, and nobody else holds it.
            unsafe { slot.drop_in_place() }
        }
        Verdict::DoneWith(status) => {
            // SAFETY: `error` is device-mapper's local.
            unsafe { *error = status.to_raw() };
            // SAFETY: Device-mapper frees the clone next, and nobody else holds it.
            unsafe { slot.drop_in_place() }
        }
    }
    verdict.to_raw()
}

/// # Safety
///
/// Called by device-mapper.
unsafe extern "C" fn presuspend<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: The target was made by `ctr::<T>`.
    unsafe { target::<T>(ti) }.presuspend();
}

/// # Safety
///
/// Called by device-mapper.
unsafe extern "C" fn presuspend_undo<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: The target was made by `ctr::<T>`.
    unsafe { target::<T>(ti) }.presuspend_undo();
}

/// # Safety
///
/// Called by device-mapper.
unsafe extern "C" fn postsuspend<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: The target was made by `ctr::<T>`.
    unsafe { target::<T>(ti) }.postsuspend();
}

/// # Safety
///
/// Called by device-mapper.
unsafe extern "C" fn preresume<T: Target>(ti: *mut bindings::dm_target) -> c_int {
    // SAFETY: The target was made by `ctr::<T>`.
    match unsafe { target::<T>(ti) }.preresume() {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// Called by device-mapper.
unsafe extern "C" fn resume<T: Target>(ti: *mut bindings::dm_target) {
    // SAFETY: The target was made by `ctr::<T>`.
    unsafe { target::<T>(ti) }.resume();
}

/// # Safety
///
/// Called by device-mapper, with a buffer of `maxlen` bytes.
unsafe extern "C" fn status<T: Target>(
    ti: *mut bindings::dm_target,
    kind: bindings::status_type_t,
    flags: c_uint,
    result: *mut c_char,
    maxlen: c_uint,
) {
    let kind = match kind {
        bindings::status_type_t_STATUSTYPE_INFO => StatusKind::Info {
            noflush: flags & bindings::DM_STATUS_NOFLUSH_FLAG != 0,
        },
        bindings::status_type_t_STATUSTYPE_TABLE => StatusKind::Table,
        _ => StatusKind::Ima,
    };
    // SAFETY: The buffer is ours during the call.
    let mut out = unsafe { StatusWriter::from_raw(result, maxlen) };
    // SAFETY: The target was made by `ctr::<T>`.
    let target = unsafe { target::<T>(ti) };
    // The writer itself never fails, so this is a formatter's own error, which leaves the text
    // as far as it got.
    let _ = match kind {
        StatusKind::Ima => out.measurement::<T>(|out| target.status(kind, out)),
        _ => target.status(kind, &mut out),
    };
}

/// # Safety
///
/// Called by device-mapper, with `argc` words in `argv` and a buffer of `maxlen` bytes.
unsafe extern "C" fn message<T: Target>(
    ti: *mut bindings::dm_target,
    argc: c_uint,
    argv: *mut *mut c_char,
    result: *mut c_char,
    maxlen: c_uint,
) -> c_int {
    // SAFETY: The words live during the call.
    let mut args = unsafe { Args::from_raw(argc, argv) };
    // SAFETY: The buffer is ours during the call.
    let mut out = unsafe { StatusWriter::from_raw(result, maxlen) };
    // SAFETY: The target was made by `ctr::<T>`.
    match unsafe { target::<T>(ti) }.message(&mut args, &mut out) {
        Ok(Reply::None) => 0,
        // Device-mapper's way to be told that the buffer holds an answer.
        Ok(Reply::Written) => 1,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// Called by device-mapper, with a callback that takes `data`.
unsafe extern "C" fn iterate_devices<T: Target>(
    ti: *mut bindings::dm_target,
    callback: bindings::iterate_devices_callout_fn,
    data: *mut c_void,
) -> c_int {
    let Some(callback) = callback else {
        return 0;
    };
    let mut visit = |dev: &Device, range: Range<u64>| {
        let len = range.end.saturating_sub(range.start);
        // SAFETY: The callback is device-mapper's, to be called like this.
        match unsafe { callback(ti, dev.as_dm_dev(), range.start, len, data) } {
            0 => ControlFlow::Continue(()),
            answer => ControlFlow::Break(answer),
        }
    };
    // SAFETY: The target was made by `ctr::<T>`.
    match unsafe { target::<T>(ti) }.iterate_devices(&mut visit) {
        ControlFlow::Continue(()) => 0,
        ControlFlow::Break(answer) => answer,
    }
}

/// # Safety
///
/// Called by device-mapper, with limits that are its to change.
unsafe extern "C" fn io_hints<T: Target>(
    ti: *mut bindings::dm_target,
    limits: *mut bindings::queue_limits,
) {
    // SAFETY: The limits are ours during the call.
    let limits = unsafe { Limits::from_raw(limits) };
    // SAFETY: The target was made by `ctr::<T>`.
    unsafe { target::<T>(ti) }.io_hints(limits);
}
