# SPDX-License-Identifier: GPL-2.0
"""What a row of the benchmark is: its lines, how they are measured, and what is wanted of them."""

import dataclasses
import typing


@dataclasses.dataclass
class Bound:
    """What is wanted of a line: words, and whether the figures of the row (by line, by column) are so."""

    words: str
    met: typing.Callable[[dict, str], bool]


def at_most(value):
    """Not more than a number."""
    return Bound(f"≤ {value:,}", lambda row, line: row[line]["ours"] <= value)


def at_most_of(column, factor, words=None):
    """Not more than a part of another column."""
    return Bound(words or f"≤ {factor:g} × {column}",
                 lambda row, line: row[line]["ours"] <= factor * row[line][column])


def at_least_of(column, factor, words=None):
    """Not less than a multiple of another column."""
    return Bound(words or f"≥ {factor:g} × {column}",
                 lambda row, line: row[line]["ours"] >= factor * row[line][column])


def at_most_of_line(other, factor):
    """Not more than a multiple of our figure in another line."""
    return Bound(f"≤ {factor:g} × {other}", lambda row, line: row[line]["ours"] <= factor * row[other]["ours"])


def at_least_of_line(other, factor):
    """Not less than a part of our figure in another line."""
    return Bound(f"≥ {factor:g} × {other}", lambda row, line: row[line]["ours"] >= factor * row[other]["ours"])


def at_most_above(column, instructions):
    """Not more than so many instructions above another column; a few are noise."""
    return Bound(f"≤ {column} + {instructions}",
                 lambda row, line: row[line]["ours"] <= row[line][column] + instructions + NOISE)


# Instructions by which two runs of the same differ.
NOISE = 8

# For comparison only.
NOTHING = Bound("", lambda row, line: True)


@dataclasses.dataclass
class Row:
    """A table of the report.

    columns: yardsticks, then "C" (the kernel's module) and "ours"; a line need not have all of them.
    lines: {name: Bound}. measure: runs in the guest and tells its figures by measure.figure.
    """

    name: str
    title: str
    unit: str
    columns: list
    lines: dict
    how: str
    measure: typing.Callable[[], None]
    # The page of the documentation, without .rst.
    page: str = "dm-clone-rs"
