# SPDX-License-Identifier: GPL-2.0
"""Faults of `interpose`, each of which a test must notice: see all_faults.py."""

from tests.fault import Fault

FAULTS = {
    "the original is not drained": Fault(
        "drivers/md/dm-interpose/origin.rs",
        [("let drained = drain.wait(DRAIN_MS);", "let drained = Ok(drop(drain));"),
         ("        drain.wait(DRAIN_MS)\n", "        Ok(drop(drain))\n")],
        "test_snapshot.py::test_snapshot_has_what_the_original_was_given",
    ),
    "an attach is undone after the thaw": Fault(
        "drivers/md/dm-interpose/origin.rs",
        [("        turn.show();\n        drained.map_err(Failure::Unsure)\n",
          "        if drained.is_err() {\n            drop(self.original.unlead());\n"
          "            turn.steps().state.leave();\n            drop(top);\n"
          "            turn.wait_for_leaving(LEAVE_UNASKED_MS);\n"
          "            let _ = turn.settle();\n        }\n"
          "        turn.show();\n        drained.map_err(Failure::Unsure)\n")],
        "test_stragglers.py::test_what_is_written_during_an_attach_that_fails_is_not_lost",
    ),
    "the file system is thawed before an attach is undone": Fault(
        "drivers/md/dm-interpose/origin.rs",
        [("            // Before the thaw: what", "            drop(frozen);\n            // Before the thaw: what"),
         ("            drop(frozen);\n            let _ = turn.settle();\n            return",
          "            let _ = turn.settle();\n            return")],
        "test_lifecycle.py::test_attach_is_undone_before_the_thaw",
    ),
    "when the last table goes, a top is dropped that has not left": Fault(
        "drivers/md/dm-interpose/state.rs",
        [("if let Some(room) = self.leaving.iter_mut().find(|room| room.is_none()) {",
          "if let (room, true) = (&mut self.leaving[0], self.current.is_some()) {")],
        "test_lifecycle.py::test_last_table_goes_while_one_leaves_and_one_is_attached",
    ),
    "a mapped device of requests is suspended, not frozen": Fault(
        "rust/dm/drain.rs",
        [("let mapped = if device.is_request_based() {", "let mapped = if false {")],
        "test_snapshot.py::test_snapshot_of_a_multipath_device",
    ),
    "the drain of a mapped device is not given up": Fault(
        "rust/dm/drain.rs",
        [("suspension.over.load(Acquire) == 1, limit)", "suspension.over.load(Acquire) == 1, None)")],
        "test_lifecycle.py::test_original_is_suspended_meanwhile",
    ),
    "no second hook": Fault(
        "rust/dm/interpose/hook.rs",
        [("may_have(device) && flags & PASSED == 0 {", "may_have(device) && flags & PASSED == 1 {")],
        "test_snapshot.py::test_snapshot_below_a_throttle",
    ),
    "the second hook goes while a thread has bios to hand on": Fault(
        "rust/dm/interpose/stragglers.rs",
        [("threads.retain(|thread| thread.has_bios());", "threads.clear();")],
        "test_stragglers.py::test_what_waits_in_the_list_of_a_thread",
    ),
    "the second hook goes although there is a throttle": Fault(
        "rust/dm/helpers.c",
        [("	if (READ_ONCE(bdev_get_queue(bdev)->td))", "	if (false)")],
        "test_snapshot.py::test_snapshot_below_a_throttle",
    ),
    "an atomic write of one block stays one for a top that knows of none": Fault(
        "rust/dm/interpose/hook.rs",
        [("            (*bio).bi_opf &= !bindings::REQ_ATOMIC;\n", "")],
        "test_messages.py::test_an_atomic_write_of_one_block_needs_no_promise",
    ),
    "what is led is charged for the original": Fault(
        "rust/dm/interpose/hook.rs",
        [("        bindings::bio_associate_blkg(bio);\n", "")],
        "test_tops.py::test_cgroup_is_charged_for_the_device_that_a_bio_is_led_to",
    ),
    "a top that needs pages that do not change is taken": Fault(
        "drivers/md/dm-interpose/fit.rs",
        [("top.stable_writes && !original.stable_writes,", "false,")],
        "test_messages.py::test_devices_are_refused",
    ),
    "a top that cannot be polled for is taken": Fault(
        "drivers/md/dm-interpose/fit.rs",
        [("refuse(original.polled && !top.polled, Misfit::Polled)?;", "")],
        "interpose_fit",
    ),
    "a top over the original itself is taken": Fault(
        "rust/dm/block_device.rs",
        [("if number == lower.number() {", "if false && number == lower.number() {")],
        "test_messages.py::test_devices_are_refused",
    ),
    "of a device that is above others only the next are looked at": Fault(
        "rust/dm/block_device.rs",
        [("            next += 1;\n", "            next = beneath.len();\n")],
        "test_messages.py::test_devices_are_refused",
    ),
    "an array that does not count its I/O is drained": Fault(
        "rust/dm/drain.rs",
        [("if suspension.is_none() && !unsafe", "if false && !unsafe")],
        "test_messages.py::test_what_cannot_be_waited_for_is_refused",
    ),
    "nobody waits for who waits before a frozen queue": Fault(
        "rust/dm/helpers.c",
        [("	return wq_has_sleeper(&bdev_get_queue(bdev)->mq_freeze_wq);", "	return false;"),
         ("	alone = !watch.private && list_is_singular(&waiters->head);", "	alone = true;")],
        "test_stragglers.py::test_what_waits_before_a_frozen_queue",
    ),
    "the driver of bios is not asked what it has in flight": Fault(
        "rust/dm/drain.rs",
        [("if drained && !self.device.is_request_based() {", "if false {")],
        "test_snapshot.py::test_snapshot_has_what_the_original_was_given[array]",
    ),
    "what a driver of bios makes of a passed one comes back to the partition": Fault(
        "rust/dm/interpose/original.rs",
        [("PassedTo(if original.is_request_based() {", "PassedTo(if true {")],
        "test_stragglers.py::test_what_an_array_submits_to_itself",
    ),
    "NVMe disks that are submitted to again are taken": Fault(
        "drivers/md/dm-interpose/target.rs",
        [("if device.is_nvme_multipath() {", "if device.is_nvme_multipath() && false {")],
        "test_lifecycle.py::test_nvme_multipath_is_refused",
    ),
    "the timer outlives the module": Fault(
        "drivers/md/dm-interpose/origin.rs",
        # By chance with the timer as it is: the hooks take about as long to go.
        [("        OwnedQueue::cancel_delayed(this);\n", ""),
         ("const LOOK_MS: u32 = 100;", "const LOOK_MS: u32 = 3_000;")],
        "test_lifecycle.py::test_module_goes_right_after_a_detach",
    ),
}
