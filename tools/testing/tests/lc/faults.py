# SPDX-License-Identifier: GPL-2.0
"""Faults of `lc`, each of which a test must notice: see all_faults.py."""

from tests.fault import Fault

FAULTS = {
    "a flush takes a write around the log for done that is on its way": Fault(
        "drivers/md/dm-lc/target.rs",
        [("            self.cache.note_backing_written();\n", ""),
         ("            write::note_around(cache, bio.sectors());\n",
          "            write::note_around(cache, bio.sectors());\n"
          "            cache.backing_written.store(1, Relaxed);\n")],
        "test_flush.py::test_flush_reaches_what_was_on_its_way_around_during_another",
    ),
    "a copy that was read during a write around the log is kept": Fault(
        "drivers/md/dm-lc/target.rs",
        [("let is_alone = write::forget_clean(&self.cache, around.sector, around.sectors);", "let is_alone = true;")],
        "test_read_caching.py::test_write_around_during_the_copy",
    ),
    "a write leaves a copy that is on its way": Fault(
        "drivers/md/dm-lc/index.rs",
        [("if overlap == 0 {", "if overlap == 0 || entry.is_expected() {")],
        "lc_promote",
    ),
    "a FUA write goes around a discard that is not durable": Fault(
        "drivers/md/dm-lc/write.rs",
        [("cache.is_all_durable() || cache.writes_backing_alone();",
          "cache.is_all_durable() || cache.writes_backing_alone() || true;")],
        "test_data_path.py::test_fua_write_is_not_overwritten_by_what_was_discarded",
    ),
    "what a late write around has overwritten stays clean": Fault(
        "drivers/md/dm-lc/index.rs",
        [("entry.key &= !CLEAN;", "entry.key &= !0;")],
        "lc_around",
    ),
    "bypassed though a discard is not durable": Fault(
        "drivers/md/dm-lc/log.rs",
        [("if !extent.promoted {", "if extent.is_written() {")],
        "test_bypass.py::test_discard_that_is_not_durable_forbids_it",
    ),
    "a flush is taken for a write when the cache is bypassed": Fault(
        "drivers/md/dm-lc/write.rs",
        [("let is_flush = bio.is_flush();", "let is_flush = bio.is_flush() && bio.op() != Op::Write;")],
        "test_bypass.py::test_flush_that_meets_the_failure_reaches_the_backing_device",
    ),
    "a superblock says that less is durable than is before its tail": Fault(
        "drivers/md/dm-lc/session.rs",
        [("self.durable_id.load(Relaxed).max(superblock.tail.id)", "self.durable_id.load(Relaxed).max(1)")],
        "test_recovery.py::test_superblock_of_an_ordered_log_that_nobody_flushed",
    ),
    "a write through the cache does not wait for the batch under way": Fault(
        "drivers/md/dm-lc/write.rs",
        [("if batches & 1 == 0 {", "if batches & 1 < 2 {")],
        "test_data_path.py::test_write_through_is_not_overtaken_by_a_batch",
    ),
    "a log that was not read is said to be written back": Fault(
        "drivers/md/dm-lc/writeback.rs",
        [("    if !this.loaded.is_set() {\n        return Err(EAGAIN);\n    }\n    let errors", "    let errors")],
        "test_recovery.py::test_log_that_cannot_be_read_at_first",
    ),
    "what goes along supersedes itself": Fault(
        "drivers/md/dm-lc/batch.rs",
        [("        batch.superseding = store.end();\n", ""),
         ("    sort(&mut batch.runs);\n    if superblock.ordered {\n",
          "    sort(&mut batch.runs);\n    batch.superseding = store.end();\n    if superblock.ordered {\n")],
        "lc_crash",
    ),
    "a flush waits until no buffer is full": Fault(
        "drivers/md/dm-lc/commit.rs",
        [("    let written = committer.write_ready(this, 0);\n",
          "    let mut written: Result<usize> = Ok(0);\n"
          "    while matches!(committer.write_ready(this, 0), Ok(count) if count != 0) { written = Ok(1); }\n")],
        "test_flush.py::test_flush_is_served_beside_a_stream",
    ),
    "a write through the cache does not look whether a batch began": Fault(
        "drivers/md/dm-lc/target.rs",
        [(".is_some_and(|then| self.cache.batches() == then);", ".is_some();")],
        "test_data_path.py::test_two_writes_through_the_cache_at_the_same_time",
    ),
    "nobody is told of a flush that failed unasked": Fault(
        "drivers/md/dm-lc/commit.rs",
        [("if asker == Asker::Users && cache.take_backing_lost() {", "if false {")],
        "test_flush.py::test_lost_flush_of_the_backing_device_is_told_to_who_asks_next",
    ),
    "flushes in passthrough reach the cache device": Fault(
        "drivers/md/dm-lc/target.rs",
        [("if cache.flushes_backing_alone() {", "if cache.flushes_backing_alone() && false {")],
        "test_flush.py::test_passthrough_flushes_the_backing_device_alone",
    ),
    "a log is not looked at beyond what can be under way": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [("            end = position + REACH;\n", "")],
        "lc_defects",
    ),
    "what is learned of durable records is forgotten behind the first": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [("            durable_id = durable_by_later(device, superblock, window, &due)?;\n",
          "            durable_id = durable_by_later(device, superblock, window, &due)?.min(due.id + 1);\n")],
        "lc_defects",
    ),
    "a write with FUA succeeds though its flush has failed": Fault(
        "drivers/md/dm-lc/target.rs",
        [("if bio.is_fua() && cache.has_failed_flush() {", "if bio.is_fua() && false {")],
        "test_flush.py::test_flush_with_data_fails_as_one_without",
    ),
    "a write with FUA outlives the failure of its flush by a suspension": Fault(
        "drivers/md/dm-lc/session.rs",
        [("        this.recall_failed_flush();\n", "        if false { this.recall_failed_flush(); }\n")],
        "test_flush.py::test_flush_with_data_fails_when_it_is_suspended_in_between",
    ),
    "a suspension recalls each failure of a flush": Fault(
        "drivers/md/dm-lc/target.rs",
        [("        self.cache.forget_old_failure();\n", "        if false { self.cache.forget_old_failure(); }\n")],
        "test_flush.py::test_suspension_recalls_no_flush_that_failed_long_before",
    ),
    "nobody is told of what a write with FUA has lost": Fault(
        "drivers/md/dm-lc/backing.rs",
        [("        if was_written {\n            self.backing",
          "        if was_written && false {\n            self.backing")],
        "test_flush.py::test_what_a_write_with_fua_has_lost_is_told_to_who_asks_next",
    ),
    "a batch that has failed is tried again as it was": Fault(
        "drivers/md/dm-lc/writeback.rs",
        [("    writer.most_records = 1;\n", "    writer.most_records = u32::MAX;\n")],
        "test_use.py::test_one_block_that_cannot_be_written_keeps_little_back",
    ),
    "a FUA write in passthrough asks for a log that nobody needs": Fault(
        "drivers/md/dm-lc/write.rs",
        [("cache.is_all_durable() || cache.writes_backing_alone();", "cache.is_all_durable();")],
        "test_flush.py::test_fua_write_in_passthrough_behind_what_was_never_flushed",
    ),
    "a flush on its way is not told of what is lost meanwhile": Fault(
        "drivers/md/dm-lc/target.rs",
        [("Status::OK if self.cache.take_backing_lost() => Status::IOERR,", "Status::OK if false => Status::IOERR,")],
        "test_flush.py::test_flush_on_its_way_is_told_what_was_lost_meanwhile",
    ),
    "a write with FUA is told of what others have lost": Fault(
        "drivers/md/dm-lc/commit.rs",
        [("            false => Asker::Fua,\n", "            false => Asker::Users,\n")],
        "test_flush.py::test_lost_flush_is_not_told_to_who_asks_for_his_own_write",
    ),
    "what was lost is forgotten when the cache is bypassed": Fault(
        "drivers/md/dm-lc/target.rs",
        [("return if cache.is_bypassed() && !is_lost {", "return if cache.is_bypassed() {")],
        "test_flush.py::test_lost_flush_is_told_when_the_cache_is_bypassed",
    ),
    "what was lost is forgotten as the cache fails": Fault(
        "drivers/md/dm-lc/write.rs",
        [("!*is_lost.get_or_insert_with(|| this.take_backing_lost())", "!*is_lost.get_or_insert(false)")],
        "test_flush.py::test_lost_flush_is_told_as_the_cache_fails",
    ),
    "who asks is not told what was lost unless the cache is bypassed": Fault(
        "drivers/md/dm-lc/target.rs",
        [("            let is_lost = cache.take_backing_lost();\n",
          "            let is_lost = cache.is_bypassed() && cache.take_backing_lost();\n")],
        "test_flush.py::test_lost_flush_is_told_once_in_passthrough",
    ),
    "the writeback does not know of the flushes of others": Fault(
        "drivers/md/dm-lc/writeback.rs",
        [("if cache.backing_failures() != self.failures {", "if false {")],
        "test_flush.py::test_what_a_flush_of_a_user_has_lost_is_written_back_again",
    ),
    "a cache that has failed is gone around": Fault(
        "drivers/md/dm-lc/write.rs",
        [("if cache.has_failed() && !cache.writes_backing_alone() {", "if false {")],
        "test_bypass.py::test_without_it_nothing_is_written",
    ),
    "what was lost keeps others from writing in passthrough": Fault(
        "drivers/md/dm-lc/write.rs",
        [("if cache.has_failed() && !cache.writes_backing_alone() {",
          "if cache.has_failed() && !cache.flushes_backing_alone() {")],
        "test_flush.py::test_lost_flush_is_told_once_in_passthrough",
    ),
    "what records of a session before lead past is not looked at": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [("        position += 1;\n",
          "        let record = RecordHeader::decode(bytes, superblock)\n"
          "            .filter(|record| record.header().at.position == position);\n"
          "        position += record.map_or(1, |record| (record.bytes() >> 9) as u64 + record.data_sectors());\n")],
        "lc_defects",
    ),
    "a record may know of a later one": Fault(
        "drivers/md/dm-lc/format.rs",
        [("            && says.durable_id <= says.at.id\n", "")],
        "lc_defects",
    ),
    "what is behind a damaged header is not looked at": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [("due.id < durable_id || due.id < durable_by_later(device, superblock, window, &due)?",
          "due.id < durable_id")],
        "lc_defects",
    ),
    "the log is read from any sector on": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [("position / ALIGNMENT * ALIGNMENT", "position")],
        "test_data_path.py::test_disks_with_blocks_of_4096_bytes",
    ),
    "promoted extents count when the log is read": Fault(
        "drivers/md/dm-lc/recovery.rs",
        [(".filter(|(extent, ..)| !extent.promoted)", ".filter(|(extent, ..)| extent.sectors != 0)")],
        "lc_promote",
    ),
}
