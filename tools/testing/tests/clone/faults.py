# SPDX-License-Identifier: GPL-2.0
"""Faults of `clone`, each of which a test must notice: see all_faults.py.

Many are what the kernel's own module does.
"""

from tests.fault import Fault

FAULTS = {
    # Data
    "a discard marks a region whose copy is in flight": Fault(
        "drivers/md/dm-clone/discard.rs",
        [("let busy = flights.table.first_of(from..end).unwrap_or(end..end);", "let busy = end..end;")],
        "test_discard.py::test_late_copy_does_not_overwrite_a_write_after_a_discard",
    ),
    "each table opens the metadata for itself": Fault(
        "drivers/md/dm-clone/registry.rs",
        [("        Ok(same)\n", "        Ok(same && false)\n")],
        "test_reload.py::test_what_is_hydrated_between_load_and_resume_stays",
    ),
    "one device may have two roles": Fault(
        "drivers/md/dm-clone/target.rs",
        [("if one.number() == other.number() {", "if one.number() == other.number() && false {")],
        "test_grammar.py::test_refuses_a_device_in_two_roles",
    ),
    "one device may have two roles in two clones": Fault(
        "drivers/md/dm-clone/registry.rs",
        [("= self.conflict(others, devices, replaces) {",
          "= self.conflict(others, devices, replaces).filter(|_| false) {")],
        "test_reload.py::test_a_device_has_one_role_in_all_clones",
    ),
    "a table formats what the one before it has": Fault(
        "drivers/md/dm-clone/registry.rs",
        [("return metadata == device && role != \"metadata\";", "return false;")],
        "test_reload.py::test_next_table_formats_nothing_that_is_in_use",
    ),
    "the end of a long read is not read": Fault(
        "drivers/md/dm-clone/read.rs",
        [("            return bio.submit(dev, sector);", "            return bio.end(Status::OK);")],
        "test_data_path.py::test_read_of_many_parts",
    ),
    "a clone may write to the source of another": Fault(
        "drivers/md/dm-clone/registry.rs",
        [("metadata == device || dest == device ||", "metadata == device || dest == device && role != \"source\" ||")],
        "test_reload.py::test_a_device_has_one_role_in_all_clones",
    ),
    "a flush with data says that all is durable that could not be committed": Fault(
        "drivers/md/dm-clone/commit.rs",
        [("mode() != Mode::ReadWrite && metadata.has_user_data() {", "mode() != Mode::ReadWrite && false {")],
        "test_errors.py::test_flush_with_data_fails_as_one_without",
    ),
    "who needs no copy waits for those of others": Fault(
        "rust/dm/copier.rs",
        [("if lane.is_some() || self.core.lanes.lock().made != 0 {", "if lane.is_some() {")],
        "test_faults.py::test_source_that_hangs_keeps_up_only_what_needs_it",
    ),
    "sizes are checked after the metadata are formatted": Fault(
        "drivers/md/dm-clone/target.rs",
        [("        check_sizes(&devices, &geometry, block_sectors)?;\n",
          "        let late = check_sizes(&devices, &geometry, block_sectors);\n"),
         ("        ti.set_flushes(1);\n", "        late?;\n        ti.set_flushes(1);\n")],
        "test_grammar.py::test_refuses_small_devices_before_it_formats",
    ),
    "after a failed commit the map is what the disk says": Fault(
        "drivers/md/dm-clone/read.rs",
        [("let (hydrated, run) = metadata.regions().run(touched.clone());",
          "let (hydrated, run) = metadata.regions().run(touched.clone());\n"
          "let regions = metadata.regions();\n"
          "let hydrated = hydrated\n"
          "    && (metadata.mode() == crate::metadata::Mode::ReadWrite\n"
          "        || !regions.is_uncommitted(touched.clone()));")],
        "test_errors.py::test_read_only_mode_keeps_acknowledged_writes",
    ),
    "the status counts what is not committed": Fault(
        "drivers/md/dm-clone/target.rs",
        [("            metadata.committed(),\n", "            metadata.hydrated(),\n")],
        "test_status.py::test_counts_what_is_durable_and_waits_for_nothing",
    ),
    "a status waits for a commit": Fault(
        "drivers/md/dm-clone/metadata.rs",
        [("            used: self.used.load(Relaxed),\n",
          "            used: self.store.lock().open.as_ref().map_or(0, |open| open.usage().0),\n")],
        "test_status.py::test_counts_what_is_durable_and_waits_for_nothing",
    ),
    "the event of the end comes before the commit": Fault(
        "drivers/md/dm-clone/commit.rs",
        [("    let result = this.metadata().commit(|| this.dest.flush());\n",
          "    if this.metadata().is_all_hydrated() && this.announced.xchg(1, Full) == 0 {\n"
          "        this.table.event();\n    }\n"
          "    let result = this.metadata().commit(|| this.dest.flush());\n")],
        "test_status.py::test_one_event_at_the_end_when_it_is_durable",
    ),
    "a FUA write that hydrates its region is acknowledged before the commit": Fault(
        "drivers/md/dm-clone/target.rs",
        [("if !fua || outcome != Status::OK {", "if fua || outcome != Status::OK {")],
        "test_flush.py::test_fua_overwrite_without_cache_is_acknowledged_after_the_commit",
    ),
    "a block that a commit takes is clean only when the commit ends": Fault(
        "drivers/md/dm-clone/uncommitted.rs",
        [("        self.dirty.remove(block);\n        self.taken_blocks.insert(block);\n",
          "        self.taken_blocks.insert(block);\n"),
         ("        self.taken_blocks.remove(block);\n",
          "        self.taken_blocks.remove(block);\n        self.dirty.remove(block);\n")],
        "uncommitted",
    ),
    # Discards
    "a short last region is never covered": Fault(
        "drivers/md/dm-clone/geometry.rs",
        [("if sectors.end == self.target_sectors {", "if sectors.end == self.target_sectors && false {")],
        "test_discard.py::test_discard_of_everything_hydrates_everything",
    ),
    "discards are divided within regions": Fault(
        "drivers/md/dm-clone/target.rs",
        [("limits.set_discard_granularity(region_sectors << SECTOR_SHIFT);",
          "limits.set_discard_granularity(1 << SECTOR_SHIFT);"),
         ("Limits::MAX_DISCARD_SECTORS & !(region_sectors - 1)", "Limits::MAX_DISCARD_SECTORS")],
        "test_discard.py::test_long_discard_loses_no_region_where_it_is_divided",
    ),
    "only whole regions are passed down": Fault(
        "drivers/md/dm-clone/discard.rs",
        [("metadata.is_complete() || metadata.regions().is_hydrated(region)", "region == u64::MAX")],
        "test_discard.py::test_discard_of_a_part_of_a_hydrated_region_is_passed_down",
    ),
    # Copies
    "what has failed is copied again at once": Fault(
        "drivers/md/dm-clone/failures.rs",
        [("                due: now.saturating_add(FIRST_DELAY),\n", "                due: now,\n"),
         ("            failed.due = now.saturating_add(failed.delay);\n", "            failed.due = now;\n"),
         # Nor does all copying rest after so many failures.
         ("if self.streak == 0 || self.streak % STREAK != 0 {", "if self.streak < u32::MAX {")],
        "test_errors.py::test_bad_region_is_not_tried_in_a_rush",
    ),
    "a copy that fails is not narrowed": Fault(
        "drivers/md/dm-clone/failures.rs",
        [("        if count > 1 {\n", "        if count > 1 && false {\n")],
        "test_hydration.py::test_copies_that_fail_are_narrowed",
    ),
    "nobody is told of regions that fail": Fault(
        "drivers/md/dm-clone/sweep.rs",
        [("    if news {\n        this.table.event();\n", "    if news && false {\n        this.table.event();\n")],
        "test_hydration.py::test_events_tell_of_failed_regions",
    ),
    "a dead source is asked for everything": Fault(
        "drivers/md/dm-clone/failures.rs",
        [("if self.streak == 0 || self.streak % STREAK != 0 {", "if self.streak < u32::MAX {")],
        "test_hydration.py::test_dead_source_is_not_asked_for_everything",
    ),
    "a device that is in use is not copied": Fault(
        "drivers/md/dm-clone/sweep.rs",
        [("let full = under_way >= copies", "let full = flights.sweep.pace.is_busy() || under_way >= copies")],
        "test_hydration.py::test_gets_complete_beside_others",
    ),
    "regions are copied one by one": Fault(
        "drivers/md/dm-clone/sweep.rs",
        [("u64::from(PIECE_SECTORS) >> shift", "u64::from(PIECE_SECTORS) >> shift >> 32")],
        "test_hydration.py::test_neighbours_are_copied_together",
    ),
    "a batch size does not bind": Fault(
        "drivers/md/dm-clone/sweep.rs",
        [("let batch_size = settings.hydration_batch_size;",
          "let batch_size = settings.hydration_batch_size.filter(|_| false);")],
        "test_hydration.py::test_given_settings_bind",
    ),
    "a write over many regions is divided": Fault(
        "drivers/md/dm-clone/hydrate.rs",
        [("let end = covered.end.min(flights.table.block_end(first));", "let end = first + 1;")],
        "test_hydration.py::test_write_over_many_regions_is_one",
    ),
    # Commits
    "a flush waits for the commit of what was only copied": Fault(
        "drivers/md/dm-clone/uncommitted.rs",
        [("self.is_dirty() && (self.user || self.user_taken)", "self.is_dirty()")],
        "test_group_commit.py::test_copies_alone_wait_for_the_timer",
    ),
    "flushes do not share a commit": Fault(
        "drivers/md/dm-clone/commit.rs",
        [("    this.commits.lock().flushes.push(bio);\n    Engine::kick_commit(this);\n",
          "    this.commits.lock().flushes.push(bio);\n    serve(this);\n")],
        "test_group_commit.py::test_one_commit_serves_all_that_came_during_another",
    ),
    "a metadata device may be too small": Fault(
        "drivers/md/dm-clone/store.rs",
        [("    3 + 2 * (arrays + nodes + bitmap_count(blocks)) + 1\n",
          "    let _ = 3 + 2 * (arrays + nodes + bitmap_count(blocks)) + 1;\n    0\n")],
        "test_space.py::test_refuses_what_is_too_small",
    ),
    "nobody is told that the metadata device is nearly full": Fault(
        "drivers/md/dm-clone/target.rs",
        [("== Loaded::NearlyFull {", "== Loaded::NearlyFull && false {")],
        "test_space.py::test_uses_what_the_stock_module_formatted_too_small",
    ),
    "a transaction that does not fit is not divided": Fault(
        "drivers/md/dm-clone/store.rs",
        [("            if room == 0 {\n                done = Done::Part(number);\n                break;\n",
          "            if room == 0 {\n                return Err(CommitError::NoSpace);\n")],
        "test_space.py::test_uses_what_the_stock_module_formatted_too_small",
    ),
    # What is said
    "words that mean nothing pass in silence": Fault(
        "drivers/md/dm-clone/target.rs",
        [('if let Ok(word) = args.next("word") {', 'if let Some(word) = args.next("word").ok().filter(|_| false) {')],
        "test_grammar.py::test_warns_of_words_after_the_last_group",
    ),
    "there is nothing to be measured": Fault(
        "drivers/md/dm-clone/target.rs",
        [("StatusKind::Ima => self.write_measurement(out),",
          "StatusKind::Ima => self.write_measurement(out).and(Err(fmt::Error)),")],
        "test_status.py::test_ima_measures_the_line",
    ),
    "a copy that fails fails all that wait": Fault(
        "drivers/md/dm-clone/hydrate.rs",
        [("if needs(&bio) {", "if needs(&bio) || true {")],
        "test_errors.py::test_write_that_waits_for_a_copy_that_fails",
    ),
    "of a run the first region is looked at twice": Fault(
        "drivers/md/dm-clone/region_map.rs",
        [("regions.start.saturating_add(1)..end", "regions.start..end")],
        "region_map",
    ),
    "an impossible space map is believed": Fault(
        "drivers/md/dm-clone/disk.rs",
        [("    if superblock.space_map_blocks() > format::MAX_BLOCKS {\n",
          "    if superblock.space_map_blocks() > format::MAX_BLOCKS && false {\n")],
        "test_corruption.py::test_refuses_an_impossible_space_map",
    ),
}
