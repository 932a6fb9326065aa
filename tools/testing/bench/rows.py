# SPDX-License-Identifier: GPL-2.0
"""All rows, by name, in the order of the report."""

import rows_commit
import rows_hydration
import rows_io
import rows_scale

ROWS = {row.name: row for module in (rows_io, rows_hydration, rows_commit, rows_scale) for row in module.ROWS}
