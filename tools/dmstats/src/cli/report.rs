// SPDX-License-Identifier: GPL-2.0

//! Rows of fields, as text or as JSON.

use std::cmp::Ordering;

use serde_json::json;
use serde_json::Value;

use super::args::Headings;
use super::fields;
use super::fields::Cell;
use super::fields::Field;
use super::fields::Object;
use super::fields::Row;
use super::fields::Section;
use super::fields::Style;
use super::select::Selection;

/// What a report looks like.
pub struct Layout {
    pub fields: Vec<&'static Field>,
    /// Fields to sort by, and whether downwards.
    pub sort: Vec<(&'static Field, bool)>,
    pub selection: Selection,
    pub headings: Headings,
    /// Between the fields; without one they are in columns.
    pub separator: Option<String>,
    pub prefixes: bool,
    pub quoted: bool,
    pub transposed: bool,
    pub style: Style,
}

/// The fields that `-o` asks for; with a `+` first, those by default and more.
pub fn parse_fields(
    text: Option<&str>,
    default: &str,
    all: &[Section],
) -> Result<Vec<&'static Field>, String> {
    let text = match text {
        None => default.to_owned(),
        Some(text) => text
            .strip_prefix('+')
            .map_or_else(|| text.to_owned(), |more| format!("{default},{more}")),
    };
    let mut found = Vec::new();
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        found.extend(
            fields::expand(name, all).ok_or_else(|| format!("Unrecognised field: {name}"))?,
        );
    }
    Ok(found)
}

/// The keys that `-O` asks for.
pub fn parse_sort(text: Option<&str>) -> Result<Vec<(&'static Field, bool)>, String> {
    let keys = text
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    keys.map(|key| {
        let name = key.trim_start_matches(['+', '-']);
        let field =
            fields::find(name).ok_or_else(|| format!("dm_report: Unrecognised field: {name}"))?;
        Ok((field, key.starts_with('-')))
    })
    .collect()
}

fn order(one: &Cell, other: &Cell) -> Ordering {
    match (one.number, other.number) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.text.cmp(&other.text),
    }
}

/// Cells, line by line, all in one buffer: a report may have a million.
struct Table {
    text: Vec<u8>,
    /// Where in the text each cell ends.
    ends: Vec<usize>,
    /// The widest cell of each column.
    widths: Vec<usize>,
}

impl Table {
    fn new(columns: usize, lines: usize) -> Self {
        Table {
            text: Vec::new(),
            ends: Vec::with_capacity(columns * lines),
            widths: vec![0; columns],
        }
    }

    /// Adds the next cell, which is in this column, as it is written.
    fn add(&mut self, column: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        self.widths[column] = self.widths[column].max(self.text.len() - start);
        self.ends.push(self.text.len());
    }

    fn cell(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }

    /// The cells of each line.
    fn lines(&self) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
        let columns = self.widths.len();
        (0..self.ends.len() / columns)
            .map(move |line| (line * columns..(line + 1) * columns).map(|index| self.cell(index)))
    }

    /// The cells of each line, with a separator between them.
    fn joined(&self, separator: &[u8]) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(self.text.len() + self.ends.len() * separator.len().max(1));
        for line in self.lines() {
            for (column, cell) in line.enumerate() {
                if column > 0 {
                    out.extend_from_slice(separator);
                }
                out.extend_from_slice(cell);
            }
            out.push(b'\n');
        }
        out
    }

    /// A line for each column.
    fn transposed(&self, separator: &[u8]) -> Vec<u8> {
        let columns = self.widths.len();
        let mut out = Vec::with_capacity(self.text.len());
        for column in 0..columns {
            let cells = (column..self.ends.len()).step_by(columns);
            let words: Vec<&[u8]> = cells.map(|index| self.cell(index)).collect();
            out.extend(words.join(separator));
            out.push(b'\n');
        }
        out
    }
}

impl Layout {
    /// The rows that are wanted, sorted. A report of which rows are selected has all of them.
    fn wanted<'r, 'a>(&self, rows: &'r [Row<'a>]) -> Vec<(&'r Row<'a>, bool)> {
        let told = self
            .fields
            .iter()
            .any(|field| field.section == Section::Special);
        let mut wanted: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row,
                    self.selection.wants(&|field| row.cell(field, &self.style)),
                )
            })
            .filter(|(_, selected)| *selected || told)
            .collect();
        wanted.sort_by(|(one, _), (other, _)| {
            let orders = self.sort.iter().map(|(field, down)| {
                let order = order(
                    &one.cell(field, &self.style),
                    &other.cell(field, &self.style),
                );
                if *down {
                    order.reverse()
                } else {
                    order
                }
            });
            orders.fold(Ordering::Equal, Ordering::then)
        });
        wanted
    }

    fn heading(&self, field: &Field) -> &'static str {
        match self.headings {
            Headings::None => "",
            Headings::Abbrev => field.heading,
            Headings::Full => field.name,
        }
    }

    /// The report as text; nothing without rows.
    pub fn text(&self, rows: &[Row<'_>]) -> Vec<u8> {
        let rows = self.wanted(rows);
        if rows.is_empty() || self.fields.is_empty() {
            return Vec::new();
        }
        let mut table = Table::new(self.fields.len(), rows.len() + 1);
        if self.headings != Headings::None {
            for (column, field) in self.fields.iter().enumerate() {
                table.add(column, |out| out.extend(self.heading(field).bytes()));
            }
        }
        for (row, selected) in rows {
            let metrics = row.metrics();
            for (column, field) in self.fields.iter().enumerate() {
                let write = |out: &mut Vec<u8>| {
                    if field.section == Section::Special {
                        out.push(b'0' + u8::from(selected));
                    } else {
                        row.write(field, &metrics, &self.style, out);
                    }
                };
                table.add(column, |out| self.value(field, write, out));
            }
        }
        match (&self.separator, self.transposed) {
            (Some(separator), true) => table.transposed(separator.as_bytes()),
            (None, true) => table.transposed(b" "),
            (Some(separator), false) => table.joined(separator.as_bytes()),
            (None, false) => self.in_columns(&table),
        }
    }

    /// The lines with each cell at the same place in all of them.
    fn in_columns(&self, table: &Table) -> Vec<u8> {
        let mut end = 0;
        let columns = self.fields.iter().zip(&table.widths);
        let places: Vec<(usize, usize, bool)> = columns
            .map(|(field, widest)| {
                let start = end;
                end += field.width.max(*widest) + 1;
                (start, end - 1, field.right)
            })
            .collect();
        let lines = table.ends.len() / places.len();
        let mut out = vec![b' '; lines * end];
        let all = out.chunks_exact_mut(end).zip(table.lines()).enumerate();
        for (index, (line, cells)) in all {
            let heading = index == 0 && self.headings != Headings::None;
            for (cell, &(start, end, right)) in cells.zip(&places) {
                let start = if right && !heading {
                    end - cell.len()
                } else {
                    start
                };
                line[start..start + cell.len()].copy_from_slice(cell);
            }
            line[end - 1] = b'\n';
        }
        out
    }

    /// Writes a cell, which `write` does, with what is before and behind it.
    #[inline]
    fn value(&self, field: &Field, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        if !self.prefixes {
            write(out);
            return;
        }
        let quote = if self.quoted { "'" } else { "" };
        out.extend(format!("DM_{}={quote}", field.name.to_ascii_uppercase()).bytes());
        write(out);
        out.extend(quote.bytes());
    }

    /// The rows as JSON: plain numbers of bytes and nanoseconds, whatever fields and units are asked for.
    pub fn json(&self, rows: &[Row<'_>], counted: bool) -> Value {
        self.wanted(rows)
            .iter()
            .map(|(row, _)| json_row(row, counted))
            .collect()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A row: `counted` adds what was counted to what there is.
fn json_row(row: &Row<'_>, counted: bool) -> Value {
    let (start, len) = row.span();
    let group = match row.object {
        Object::Group(id, _) => Some(id),
        Object::Area(region, _) | Object::Region(region) => region.group,
    };
    let mut value = json!({
        "device": row.subject.shown(),
        "devno": row.subject.devno().to_string(),
        "object": row.kind(),
        "name": lossy(&row.name()),
        "group_id": group,
        "start_bytes": u128::from(start) * 512,
        "length_bytes": u128::from(len) * 512,
    });
    let Some(all) = value.as_object_mut() else {
        return value;
    };
    match row.object {
        Object::Area(region, area) => {
            all.insert("region_id".into(), json!(region.id));
            all.insert("area_id".into(), json!(area));
        }
        Object::Region(region) => {
            all.insert("region_id".into(), json!(region.id));
            all.insert("areas".into(), json!(region.areas()));
            all.insert(
                "area_length_bytes".into(),
                json!(u128::from(region.step) * 512),
            );
        }
        Object::Group(_, group) => {
            all.insert("alias".into(), json!(lossy(&group.alias)));
            all.insert("regions".into(), json!(group.members.to_string()));
        }
    }
    if let Some(region) = row.region() {
        all.insert("program_id".into(), json!(lossy(&region.program)));
        all.insert("user_data".into(), json!(lossy(&region.user)));
        all.insert("precise".into(), json!(region.precise));
    }
    all.insert("histogram_bounds_ns".into(), json!(row.bounds()));
    if let Some(error) = row.error {
        all.insert("attribution_error".into(), json!(error));
    }
    if counted {
        let (counters, metrics) = (&row.count.counters, row.metrics());
        all.insert("histogram".into(), json!(row.count.bins));
        all.insert(
            "counters".into(),
            json!({
                "reads": counters.reads, "reads_merged": counters.reads_merged,
                "read_bytes": u128::from(counters.read_sectors) * 512, "read_ns": counters.read_time,
                "writes": counters.writes, "writes_merged": counters.writes_merged,
                "write_bytes": u128::from(counters.write_sectors) * 512, "write_ns": counters.write_time,
                "in_progress": counters.in_progress, "busy_ns": counters.io_ticks, "queue_ns": counters.queue_ticks,
                "read_busy_ns": counters.read_ticks, "write_busy_ns": counters.write_ticks,
            }),
        );
        all.insert(
            "metrics".into(),
            json!({
                "reads_per_sec": metrics.reads_per_sec, "writes_per_sec": metrics.writes_per_sec,
                "reads_merged_per_sec": metrics.reads_merged_per_sec, "writes_merged_per_sec": metrics.writes_merged_per_sec,
                "read_bytes_per_sec": metrics.read_sectors_per_sec * 512.0,
                "write_bytes_per_sec": metrics.write_sectors_per_sec * 512.0,
                "average_request_bytes": metrics.average_size * 512.0, "queue_size": metrics.queue_size,
                "await_ns": metrics.average_wait, "read_await_ns": metrics.read_wait, "write_await_ns": metrics.write_wait,
                "throughput": metrics.throughput, "service_ns": metrics.service_time, "utilization": metrics.utilization,
            }),
        );
    }
    value
}
