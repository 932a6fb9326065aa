# SPDX-License-Identifier: GPL-2.0
"""All rows, by name, in the order of the report."""

import rows_commit
import rows_dmstats
import rows_hydration
import rows_interpose
import rows_io
import rows_lc
import rows_scale

MODULES = (rows_io, rows_hydration, rows_commit, rows_scale, rows_interpose, rows_lc, rows_dmstats)
ROWS = {row.name: row for module in MODULES for row in module.ROWS}
