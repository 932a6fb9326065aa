# SPDX-License-Identifier: GPL-2.0
"""The benchmark's report: tables on the terminal, and the same as a page of the documentation."""

import textwrap

from rich.table import Table

# The pages: a title, and what is measured.
PAGES = {
    "dm-clone-rs": (
        "Performance of dm-clone-rs",
        "The target ``clone`` of this project (*ours*) and that of the stock kernel (*C*), measured one after the other"
        " in the same boot of a virtual machine, with the same commands.",
    ),
    "dm-interpose-rs": (
        "Performance of dm-interpose-rs",
        "What the target ``interpose`` adds to an I/O, measured in one boot of a virtual machine.",
    ),
    "dm-lc-rs": (
        "Performance of dm-lc-rs",
        "The target ``lc`` of this project (*ours*), dm-writecache of the stock kernel, a linear device and the disk"
        " itself, measured one after the other in the same boot of a virtual machine, with the same commands.",
    ),
    "dmstats-rs": (
        "Performance of dmstats-rs",
        "``dmstats`` of this project (*ours*) and that of LVM2, as Debian has it, measured one after the other in the"
        " same boot of a virtual machine, with the same commands.",
    ),
}
INTRODUCTION = """\
.. SPDX-License-Identifier: GPL-2.0
.. Written by `make bench`: changes by hand are lost.

{underline}
{title}
{underline}

{what} The machine's clock counts instructions: QEMU emulates one CPU
with ``{accelerator}``, so that an instruction takes one nanosecond, and idle time costs nothing.
Figures do not depend on the machine that this runs on, or on what else it does. They say nothing of caches and
memory, and a copied byte weighs more than on hardware: compare the columns of a line, not the figures with those of
another machine.

:Kernel: {kernel}
:Source: {commit}
:Date: {date}
:Command: ``{command}``

Runs of each row: {runs}, each in a new boot; the figures are means. *Spread* is the largest distance of
one run from the mean, in any column. *Ratio* is ours divided by C's. Nothing fails if a bound is missed: the last
column says so.

"""


def number(value):
    """A figure for readers."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def header(row):
    """The words above the columns."""
    ratio = ["ratio"] if "C" in row.columns else []
    return [row.unit, *row.columns, *ratio, "wanted", "met", "spread"]


def line_cells(row, line, runs):
    """The cells of a line; runs: the figures of each run."""
    mean = means(row, runs)
    figures = mean[line]
    cells = [line, *(number(figures[column]) if column in figures else "" for column in row.columns)]
    if "C" in row.columns:
        cells.append(f"{figures['ours'] / figures['C']:.2f}" if figures.get("C") else "")
    bound = row.lines[line]
    met = ("yes" if bound.met(mean, line) else "NO") if bound.words else ""
    return [*cells, bound.words, met, f"±{spread(runs, line) * 100:.1f} %" if len(runs) > 1 else ""]


def means(row, runs):
    """The mean of each figure."""
    return {
        line: {column: sum(run[line][column] for run in runs) / len(runs) for column in runs[0][line]}
        for line in row.lines
    }


def spread(runs, line):
    """The largest relative distance of a figure of this line from its mean."""
    largest = 0
    for column in runs[0][line]:
        values = [run[line][column] for run in runs]
        mean = sum(values) / len(values)
        largest = max([largest, *(abs(value - mean) / mean for value in values if mean)])
    return largest


def table(row, runs):
    """A row for the terminal."""
    made = Table(title=f"{row.title} ({row.name})", title_justify="left")
    for number_of, words in enumerate(header(row)):
        made.add_column(words, justify="left" if number_of == 0 else "right")
    for line in row.lines:
        cells = line_cells(row, line, runs)
        made.add_row(*cells, style="red" if "NO" in cells else None)
    return made


def page(name, rows, results, facts):
    """A page of the documentation. results: the runs of each row, by its name."""
    title, what = PAGES[name]
    what = textwrap.fill(what, 118)
    text = INTRODUCTION.format(title=title, what=what, underline="=" * len(title), **facts)
    for row in rows:
        text += f"{row.title}\n{'-' * len(row.title)}\n\n{textwrap.fill(row.how, 100)}\n\n"
        text += plain_table([header(row), *(line_cells(row, line, results[row.name]) for line in row.lines)])
        text += "\n"
    return text.rstrip("\n") + "\n"


def plain_table(lines):
    """A table that reads the same in the source of the page; the first line is its header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)

    def row(cells):
        first, *others = (cell.ljust(width) if place == 0 else cell.rjust(width)
                          for place, (cell, width) in enumerate(zip(cells, widths, strict=True)))
        return "  ".join([first, *others]).rstrip()

    return "\n".join([rule, row(lines[0]), rule, *map(row, lines[1:]), rule]) + "\n"
