// SPDX-License-Identifier: GPL-2.0

//! Rows of fields, as text or as JSON.

use std::cell::LazyCell;
use std::cmp::Ordering;
use std::io;
use std::io::Write;
use std::ops::Range;

use serde_json::json;

use super::args::Headings;
use super::fields;
use super::fields::Cell;
use super::fields::Field;
use super::fields::Object;
use super::fields::Row;
use super::fields::Section;
use super::fields::Style;
use super::fields::Value;
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

/// Cells, all in one buffer: a report may have a million. In most columns most cells say the same as the one above
/// them: these are left out.
struct Table {
    /// What they say, one after the other.
    text: Vec<u8>,
    /// The column of each cell, and how many bytes of the text it has.
    cells: Vec<(u32, u32)>,
    /// How many cells there are up to the end of each line, and how many bytes of the text.
    lines: Vec<(usize, usize)>,
    /// The widest cell of each column.
    widths: Vec<usize>,
}

impl Table {
    fn new(columns: usize, lines: usize) -> Self {
        Table {
            text: Vec::new(),
            cells: Vec::new(),
            lines: Vec::with_capacity(lines),
            widths: vec![0; columns],
        }
    }

    /// Adds a cell to the line, as it is written.
    fn add(&mut self, column: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        let len = self.text.len() - start;
        self.widths[column] = self.widths[column].max(len);
        self.cells.push((column as u32, len as u32));
    }

    fn end_line(&mut self) {
        self.lines.push((self.cells.len(), self.text.len()));
    }

    /// The cells of each line that differ from those above them: their columns, and what they say.
    fn lines(&self) -> impl Iterator<Item = impl Iterator<Item = (usize, &[u8])>> {
        let mut start = (0, 0);
        self.lines.iter().map(move |end| {
            let line = &self.cells[start.0..end.0];
            let mut text = &self.text[start.1..end.1];
            start = *end;
            line.iter().map(move |(column, len)| {
                let cell;
                (cell, text) = text.split_at(*len as usize);
                (*column as usize, cell)
            })
        })
    }

    /// Writes the cells of each line, with a separator between them.
    fn write_joined(&self, separator: &[u8], out: &mut impl Write) -> io::Result<()> {
        let mut all = vec![&[][..]; self.widths.len()];
        for line in self.lines() {
            line.for_each(|(column, text)| all[column] = text);
            out.write_all(&all.join(separator))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes a line for each column.
    fn write_transposed(&self, separator: &[u8], out: &mut impl Write) -> io::Result<()> {
        let mut all = vec![&[][..]; self.widths.len()];
        let mut columns = vec![Vec::with_capacity(self.lines.len()); self.widths.len()];
        for line in self.lines() {
            line.for_each(|(column, text)| all[column] = text);
            for (column, cell) in columns.iter_mut().zip(&all) {
                column.push(*cell);
            }
        }
        for column in columns {
            out.write_all(&column.join(separator))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes the lines with each cell at its column's place: from where to where that is, and whether it stands at its
    /// right. The first line may be a heading, which stands at the left.
    fn write_columns(
        &self,
        places: &[(Range<usize>, bool)],
        heading: bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut line = vec![b' '; places.last().map_or(0, |(place, _)| place.end)];
        line.push(b'\n');
        // How much of each cell is not blank; all that a heading may have left.
        let mut written = vec![usize::MAX; places.len()];
        for (index, cells) in self.lines().enumerate() {
            for (column, text) in cells {
                let (place, right) = &places[column];
                let cell = &mut line[place.clone()];
                let is_heading = heading && index == 0;
                let blanks = cell.len() - text.len();
                let start = if *right && !is_heading { blanks } else { 0 };
                if text.len() < written[column] {
                    cell.fill(b' ');
                }
                written[column] = if is_heading { usize::MAX } else { text.len() };
                cell[start..start + text.len()].copy_from_slice(text);
            }
            out.write_all(&line)?;
        }
        Ok(())
    }
}

impl Layout {
    fn selects(&self, row: &Row<'_>) -> bool {
        self.selection.wants(&|field| row.cell(field, &self.style))
    }

    /// The rows that are wanted, sorted. A report of which rows are selected has all of them.
    fn wanted<'a>(&self, mut rows: Vec<Row<'a>>) -> Vec<Row<'a>> {
        let told = self
            .fields
            .iter()
            .any(|field| field.section == Section::Special);
        if !told && !matches!(self.selection, Selection::All) {
            rows.retain(|row| self.selects(row));
        }
        if self.sort.is_empty() {
            return rows;
        }
        rows.sort_by(|one, other| {
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
        rows
    }

    fn heading(&self, field: &Field) -> &'static str {
        match self.headings {
            Headings::None => "",
            Headings::Abbrev => field.heading,
            Headings::Full => field.name,
        }
    }

    /// Writes the report as text; nothing without rows.
    pub fn write(&self, rows: Vec<Row<'_>>, out: &mut impl Write) -> io::Result<()> {
        let rows = self.wanted(rows);
        if rows.is_empty() || self.fields.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(self.fields.len(), rows.len() + 1);
        let headed = self.headings != Headings::None;
        if headed {
            for (column, field) in self.fields.iter().enumerate() {
                table.add(column, |out| out.extend(self.heading(field).bytes()));
            }
            table.end_line();
        }
        // Thousands of regions in a row mostly are alike.
        let all: Vec<usize> = (0..self.fields.len()).collect();
        let of_place: Vec<usize> = all
            .iter()
            .copied()
            .filter(|column| self.fields[*column].is_of_place())
            .collect();
        let mut above: Vec<Option<Value<'_>>> = vec![None; self.fields.len()];
        let mut row_above: Option<&Row<'_>> = None;
        for row in &rows {
            let metrics = LazyCell::new(|| row.metrics());
            let columns = match row_above {
                Some(other) if row.is_like(other) => &of_place,
                _ => &all,
            };
            row_above = Some(row);
            for column in columns.iter().copied() {
                let (field, above) = (self.fields[column], &mut above[column]);
                let value = match field.section {
                    Section::Special => Value::Number(self.selects(row).into()),
                    _ => row.value(field, &metrics, &self.style),
                };
                if !above.as_ref().is_some_and(|above| above.is_like(&value)) {
                    table.add(column, |out| self.write_cell(field, &value, out));
                    *above = Some(value);
                }
            }
            table.end_line();
        }
        match (&self.separator, self.transposed) {
            (Some(separator), true) => table.write_transposed(separator.as_bytes(), out),
            (None, true) => table.write_transposed(b" ", out),
            (Some(separator), false) => table.write_joined(separator.as_bytes(), out),
            (None, false) => table.write_columns(&self.places(&table.widths), headed, out),
        }
    }

    /// Where in a line the columns are, with a blank between them, and whether their cells stand at the right.
    fn places(&self, widths: &[usize]) -> Vec<(Range<usize>, bool)> {
        let mut start = 0;
        let columns = self.fields.iter().zip(widths);
        columns
            .map(|(field, widest)| {
                let place = start..start + field.width.max(*widest);
                start = place.end + 1;
                (place, field.right)
            })
            .collect()
    }

    /// Writes a cell, with what is before and behind it.
    fn write_cell(&self, field: &Field, value: &Value<'_>, out: &mut Vec<u8>) {
        if !self.prefixes {
            value.write(&self.style, out);
            return;
        }
        let quote = if self.quoted { "'" } else { "" };
        out.extend(format!("DM_{}={quote}", field.name.to_ascii_uppercase()).bytes());
        value.write(&self.style, out);
        out.extend(quote.bytes());
    }

    /// The rows as JSON: plain numbers of bytes and nanoseconds, whatever fields and units are asked for.
    pub fn json(&self, rows: Vec<Row<'_>>, counted: bool) -> serde_json::Value {
        self.wanted(rows)
            .iter()
            .map(|row| json_row(row, counted))
            .collect()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As bytes, of which JSON has no more than 64 bits.
fn bytes(sectors: u64) -> u64 {
    sectors.saturating_mul(512)
}

/// A row: `counted` adds what was counted to what there is.
fn json_row(row: &Row<'_>, counted: bool) -> serde_json::Value {
    let (start, len) = row.span();
    let mut value = json!({
        "device": row.view.subject.shown(),
        "devno": row.view.subject.devno().to_string(),
        "object": row.kind(),
        "name": lossy(&row.name()),
        "group_id": row.group(),
        "start_bytes": bytes(start),
        "length_bytes": bytes(len),
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
            all.insert("area_length_bytes".into(), json!(bytes(region.step)));
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
    if let Some(error) = row.error() {
        all.insert("attribution_error".into(), json!(error));
    }
    if counted {
        let (counters, metrics) = (&row.count.counters, row.metrics());
        all.insert("histogram".into(), json!(row.count.bins));
        all.insert(
            "counters".into(),
            json!({
                "reads": counters.reads, "reads_merged": counters.reads_merged,
                "read_bytes": bytes(counters.read_sectors), "read_ns": counters.read_time,
                "writes": counters.writes, "writes_merged": counters.writes_merged,
                "write_bytes": bytes(counters.write_sectors), "write_ns": counters.write_time,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_any_number_of_sectors() {
        assert_eq!(json!(bytes(8)), json!(4096));
        assert_eq!(json!(bytes(u64::MAX / 512 + 1)), json!(u64::MAX));
    }
}
