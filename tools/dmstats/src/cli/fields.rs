// SPDX-License-Identifier: GPL-2.0

//! The fields of a report: names, headings, and what stands in them. Names, headings, widths and the forms of
//! values are those of LVM2's `dmstats`, whose reports scripts read.

use dmstats::bounds::time;
use dmstats::metrics::Metrics;
use dmstats::Counters;
use dmstats::Group;
use dmstats::Region;
use dmstats::Snapshot;

use super::subject::Subject;
use super::units::digits;
use super::units::two_decimals;
use super::units::Units;

/// What a field's values are, for selections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Number,
    Size,
    Percent,
    Text,
}

/// The part of the fields that a field is among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Name,
    Info,
    Deps,
    Split,
    Stats,
    Region,
    Special,
}

impl Section {
    pub const ALL: [(Section, &'static str, &'static str); 7] = [
        (Section::Name, "name", "Mapped Device Name"),
        (Section::Info, "info", "Mapped Device Information"),
        (
            Section::Deps,
            "deps",
            "Mapped Device Relationship Information",
        ),
        (Section::Split, "splitname", "Mapped Device Name Components"),
        (Section::Stats, "stats", "Mapped Device Statistics"),
        (
            Section::Region,
            "region",
            "Mapped Device Statistics Region Information",
        ),
        (Section::Special, "", "Special"),
    ];
}

/// A field.
pub struct Field {
    pub name: &'static str,
    pub heading: &'static str,
    /// How wide its column is at least; numbers stand at its right.
    pub width: usize,
    pub right: bool,
    pub kind: Kind,
    pub section: Section,
    pub about: &'static str,
}

macro_rules! fields {
    ($($section:ident $name:ident $heading:literal $width:literal $side:ident $kind:ident $about:literal;)*) => {
        /// All fields.
        pub const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            heading: $heading,
            width: $width,
            right: fields!(@ $side),
            kind: Kind::$kind,
            section: Section::$section,
            about: $about,
        }),*];
    };
    (@ right) => { true };
    (@ left) => { false };
}

fields! {
    Name name "Name" 16 left Text "Name of mapped device.";
    Name mangled_name "MangledName" 16 left Text "Mangled name of mapped device.";
    Name unmangled_name "UnmangledName" 16 left Text "Unmangled name of mapped device.";
    Name uuid "UUID" 32 left Text "Unique (optional) identifier for mapped device.";
    Name mangled_uuid "MangledUUID" 32 left Text "Mangled unique (optional) identifier for mapped device.";
    Name unmangled_uuid "UnmangledUUID" 32 left Text "Unmangled unique (optional) identifier for mapped device.";
    Name read_ahead "RAhead" 6 right Number "Read ahead value.";
    Info blkdevname "BlkDevName" 16 left Text "Name of block device.";
    Info attr "Stat" 4 left Text "(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite.";
    Info tables_loaded "Tables" 6 left Text "Which of the live and inactive table slots are filled.";
    Info suspended "Suspended" 9 left Text "Whether the device is suspended.";
    Info readonly "Read-only" 9 left Text "Whether the device is read-only or writeable.";
    Info devno "DevNo" 5 left Text "Device major and minor numbers";
    Info major "Maj" 3 right Number "Block device major number.";
    Info minor "Min" 3 right Number "Block device minor number.";
    Info open "Open" 4 right Number "Number of references to open device, if requested.";
    Info segments "Targ" 4 right Number "Number of segments in live table, if present.";
    Info events "Event" 6 right Number "Number of most recent event.";
    Deps device_count "#Devs" 5 right Number "Number of devices used by this one.";
    Deps devs_used "DevNamesUsed" 16 left Text "List of names of mapped devices used by this one.";
    Deps devnos_used "DevNosUsed" 16 left Text "List of device numbers of devices used by this one.";
    Deps blkdevs_used "BlkDevNamesUsed" 16 left Text "List of names of block devices used by this one.";
    Deps device_ref_count "#Refs" 5 right Number "Number of mapped devices referencing this one.";
    Deps names_using_dev "RefNames" 8 left Text "List of names of mapped devices using this one.";
    Deps devnos_using_dev "RefDevNos" 9 left Text "List of device numbers of mapped devices using this one.";
    Split subsystem "Subsys" 6 left Text "Userspace subsystem responsible for this device.";
    Split vg_name "VG" 4 left Text "LVM Volume Group name.";
    Split lv_name "LV" 4 left Text "LVM Logical Volume name.";
    Split lv_layer "LVLayer" 7 left Text "LVM device layer.";
    Stats read_count "#Reads" 6 right Number "Count of reads completed.";
    Stats reads_merged_count "#RdMrgs" 7 right Number "Count of read requests merged.";
    Stats read_sector_count "#RdSectors" 10 right Number "Count of sectors read.";
    Stats read_time "AccRdTime" 11 right Number "Accumulated duration of all read requests (ns).";
    Stats write_count "#Writes" 7 right Number "Count of writes completed.";
    Stats writes_merged_count "#WrMrgs" 7 right Number "Count of write requests merged.";
    Stats write_sector_count "#WrSectors" 10 right Number "Count of sectors written.";
    Stats write_time "AccWrTime" 11 right Number "Accumulated duration of all writes (ns).";
    Stats in_progress_count "#InProg" 7 right Number "Count of requests currently in progress.";
    Stats io_ticks "IoTicks" 7 right Number "Nanoseconds spent servicing requests.";
    Stats queue_ticks "QueueTicks" 10 right Number "Total nanoseconds spent in queue.";
    Stats read_ticks "RdTicks" 7 right Number "Nanoseconds spent servicing reads.";
    Stats write_ticks "WrTicks" 7 right Number "Nanoseconds spent servicing writes.";
    Stats reads_merged_per_sec "RMrg/s" 6 right Number "Read requests merged per second.";
    Stats writes_merged_per_sec "WMrg/s" 6 right Number "Write requests merged per second.";
    Stats reads_per_sec "R/s" 4 right Number "Reads per second.";
    Stats writes_per_sec "W/s" 4 right Number "Writes per second.";
    Stats read_size_per_sec "RSz/s" 5 right Size "Size of data read per second.";
    Stats write_size_per_sec "WSz/s" 5 right Size "Size of data written per second.";
    Stats avg_request_size "AvgRqSz" 7 right Size "Average request size.";
    Stats queue_size "QSize" 5 right Number "Average queue size.";
    Stats await "AWait" 5 right Number "Average wait time.";
    Stats read_await "RdAWait" 7 right Number "Average read wait time.";
    Stats write_await "WrAWait" 7 right Number "Average write wait time.";
    Stats throughput "Throughput" 10 right Number "Throughput.";
    Stats service_time "SvcTm" 5 right Number "Service time.";
    Stats util "Util%" 5 right Percent "Utilization.";
    Stats hist_count "Histogram Counts" 16 left Text "Latency histogram counts.";
    Stats hist_count_bounds "Histogram Counts" 16 left Text "Latency histogram counts with bin boundaries.";
    Stats hist_count_ranges "Histogram Counts" 16 left Text "Latency histogram counts with bin ranges.";
    Stats hist_percent "Histogram%" 10 left Text "Relative latency histogram.";
    Stats hist_percent_bounds "Histogram%" 10 left Text "Relative latency histogram with bin boundaries.";
    Stats hist_percent_ranges "Histogram%" 10 left Text "Relative latency histogram with bin ranges.";
    Stats interval_ns "IntervalNs" 10 right Number "Sampling interval in nanoseconds.";
    Stats interval "Interval" 8 right Number "Sampling interval.";
    Region region_id "RgID" 4 right Number "Region ID.";
    Region region_start "RgStart" 7 right Size "Region start.";
    Region region_len "RgSize" 6 right Size "Region length.";
    Region area_id "ArID" 4 right Number "Area ID.";
    Region area_start "ArStart" 7 right Size "Area offset from start of device.";
    Region area_len "ArSize" 6 right Size "Area length.";
    Region area_offset "ArOff" 5 right Size "Area offset from start of region.";
    Region area_count "#Areas" 6 right Number "Area count.";
    Region group_id "GrpID" 5 right Number "Group ID.";
    Region program_id "ProgID" 6 left Text "Program ID.";
    Region user_data "UserData" 8 left Text "Auxiliary data.";
    Region precise "Precise" 7 left Text "Set if nanosecond precision counters are enabled.";
    Region hist_bins "#Bins" 9 left Text "The number of histogram bins configured.";
    Region hist_bounds "Histogram Bounds" 16 left Text "Latency histogram bin boundaries.";
    Region hist_ranges "Histogram Ranges" 16 left Text "Latency histogram bin ranges.";
    Region stats_name "Name" 16 left Text "Stats name of current object.";
    Region obj_type "ObjType" 7 left Text "Type of stats object being reported.";
    Special selected "Selected" 8 right Number "Set if item passes selection criteria.";
}

/// A field by its name; case and underscores do not matter.
pub fn find(name: &str) -> Option<&'static Field> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "");
    FIELDS.iter().find(|field| plain(field.name) == plain(name))
}

/// Fields that have to be asked for by name.
const NOT_OF_ALL: [&str; 4] = [
    "devs_used",
    "device_ref_count",
    "names_using_dev",
    "devnos_using_dev",
];

/// The fields that a name stands for: one, or all of a section.
pub fn expand(name: &str, all: &[Section]) -> Option<Vec<&'static Field>> {
    let lower = name.to_ascii_lowercase();
    let of = |sections: &[Section]| {
        FIELDS
            .iter()
            .filter(|field| sections.contains(&field.section) && !NOT_OF_ALL.contains(&field.name))
            .collect::<Vec<_>>()
    };
    if lower == "all" {
        return Some(of(all));
    }
    let section = lower
        .strip_suffix("_all")
        .and_then(|name| Section::ALL.iter().find(|(_, short, _)| *short == name));
    match section {
        Some((section, ..)) => Some(of(&[*section])),
        None => find(name).map(|field| vec![field]),
    }
}

/// What `-o help` shows, with the kinds for `-S help`.
pub fn help(kinds: bool) -> String {
    let mut text = String::new();
    for (section, short, title) in Section::ALL {
        let heading = format!("{title} Fields");
        text += &format!("{heading}\n{}\n", "-".repeat(heading.len()));
        if !kinds && !short.is_empty() {
            text += &format!(
                "  {:<22}- All fields in this section.\n",
                format!("{short}_all")
            );
        }
        for field in FIELDS.iter().filter(|field| field.section == section) {
            let kind = match field.kind {
                Kind::Number => " [number]",
                Kind::Size => " [size]",
                Kind::Percent => " [percent]",
                Kind::Text => " [string]",
            };
            text += &format!(
                "  {:<22}- {}{}\n",
                field.name,
                field.about,
                if kinds { kind } else { "" }
            );
        }
        text += " \n";
    }
    text
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Object<'a> {
    Area(&'a Region, u64),
    Region(&'a Region),
    Group(u32, &'a Group),
}

/// A row of a report.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The part of its counts that is estimated, if it is a file that lies under a group.
    pub error: Option<f64>,
    pub subject: &'a Subject<'a>,
    pub snapshot: &'a Snapshot,
    pub object: Object<'a>,
    pub counters: Counters,
    /// What the counters mean.
    pub metrics: Metrics,
    pub bins: &'a [u64],
    pub interval_ns: u64,
}

/// How values are shown.
pub struct Style {
    pub units: Units,
    /// Histograms with their bins at fixed widths.
    pub padded: bool,
    /// Times with units.
    pub time_suffix: bool,
}

/// What stands in a field: the text, and what it is compared and sorted by.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub text: Vec<u8>,
    pub number: Option<f64>,
}

fn text(text: impl Into<Vec<u8>>) -> Cell {
    Cell {
        text: text.into(),
        number: None,
    }
}

fn number(value: u64) -> Cell {
    Cell {
        text: digits(value).into_bytes(),
        number: Some(value as f64),
    }
}

fn rate(value: f64) -> Cell {
    Cell {
        text: two_decimals(value).into_bytes(),
        number: Some(value),
    }
}

/// Words where a number would be; they come after all numbers.
fn beyond(words: impl Into<Vec<u8>>) -> Cell {
    Cell {
        text: words.into(),
        number: Some(f64::INFINITY),
    }
}

impl<'a> Row<'a> {
    /// The region that speaks for the row: its own, or the leader of its group.
    pub fn region(&self) -> Option<&'a Region> {
        match self.object {
            Object::Area(region, _) | Object::Region(region) => Some(region),
            Object::Group(id, _) => self.snapshot.regions.get(&id),
        }
    }

    fn group(&self) -> Option<(u32, &'a Group)> {
        match self.object {
            Object::Group(id, group) => Some((id, group)),
            Object::Area(region, _) | Object::Region(region) => {
                let id = region.group?;
                self.snapshot.groups.get(&id).map(|group| (id, group))
            }
        }
    }

    /// The bounds of the row's histogram.
    pub fn bounds(&self) -> &'a [u64] {
        match self.object {
            Object::Area(region, _) | Object::Region(region) => &region.bounds,
            Object::Group(_, group) => self.snapshot.group_bounds(group).unwrap_or_default(),
        }
    }

    /// First sector and length of what the row is about; a group has as many sectors as its regions.
    pub fn span(&self) -> (u64, u64) {
        match self.object {
            Object::Area(region, area) => (region.area_start(area), region.area_len(area)),
            Object::Region(region) => (region.start, region.len),
            Object::Group(_, group) => {
                let members = group
                    .members
                    .among(&self.snapshot.regions)
                    .filter_map(|id| self.snapshot.regions.get(&id));
                let (mut start, mut sectors) = (None, 0u64);
                for region in members {
                    start = start.or(Some(region.start));
                    sectors = sectors.saturating_add(region.len);
                }
                (start.unwrap_or_default(), sectors)
            }
        }
    }

    /// What the row is called.
    pub fn name(&self) -> Vec<u8> {
        self.group().map_or_else(
            || super::names::shown(&self.subject.name),
            |(_, group)| group.name(),
        )
    }

    /// `area`, `region` or `group`.
    pub fn kind(&self) -> &'static str {
        match self.object {
            Object::Area(..) => "area",
            Object::Region(_) => "region",
            Object::Group(..) => "group",
        }
    }

    /// What stands in a field.
    pub fn cell(&self, field: &Field, style: &Style) -> Cell {
        match field.section {
            Section::Stats => self.stats_cell(field, style),
            Section::Region => self.region_cell(field, style),
            Section::Special => number(1),
            _ => self
                .subject
                .info()
                .map_or_else(|| text(""), |info| super::names::cell(info, field.name)),
        }
    }

    fn size(&self, sectors: f64, style: &Style) -> Cell {
        let bytes = sectors * 512.0;
        Cell {
            text: style.units.show(bytes).into_bytes(),
            number: Some(bytes),
        }
    }

    fn stats_cell(&self, field: &Field, style: &Style) -> Cell {
        let (counters, metrics) = (&self.counters, &self.metrics);
        let ms = |ns: f64| rate(ns / 1e6);
        match field.name {
            "read_count" => number(counters.reads),
            "reads_merged_count" => number(counters.reads_merged),
            "read_sector_count" => number(counters.read_sectors),
            "read_time" => number(counters.read_time),
            "write_count" => number(counters.writes),
            "writes_merged_count" => number(counters.writes_merged),
            "write_sector_count" => number(counters.write_sectors),
            "write_time" => number(counters.write_time),
            "in_progress_count" => number(counters.in_progress),
            "io_ticks" => number(counters.io_ticks),
            "queue_ticks" => number(counters.queue_ticks),
            "read_ticks" => number(counters.read_ticks),
            "write_ticks" => number(counters.write_ticks),
            "reads_merged_per_sec" => rate(metrics.reads_merged_per_sec),
            "writes_merged_per_sec" => rate(metrics.writes_merged_per_sec),
            "reads_per_sec" => rate(metrics.reads_per_sec),
            "writes_per_sec" => rate(metrics.writes_per_sec),
            "read_size_per_sec" => self.size(metrics.read_sectors_per_sec.trunc(), style),
            "write_size_per_sec" => self.size(metrics.write_sectors_per_sec.trunc(), style),
            "avg_request_size" => self.size(metrics.average_size.trunc(), style),
            "queue_size" => rate(metrics.queue_size),
            "await" => ms(metrics.average_wait),
            "read_await" => ms(metrics.read_wait),
            "write_await" => ms(metrics.write_wait),
            "throughput" => rate(metrics.throughput),
            "service_time" => ms(metrics.service_time),
            "util" => rate(metrics.utilization * 100.0),
            "hist_count" => self.histogram(style, false, Bins::None),
            "hist_count_bounds" => self.histogram(style, false, Bins::Bounds),
            "hist_count_ranges" => self.histogram(style, false, Bins::Ranges),
            "hist_percent" => self.histogram(style, true, Bins::None),
            "hist_percent_bounds" => self.histogram(style, true, Bins::Bounds),
            "hist_percent_ranges" => self.histogram(style, true, Bins::Ranges),
            "interval_ns" => number(self.interval_ns),
            "interval" => Cell {
                text: format!("{:.6}", self.interval_ns as f64 / 1e9).into_bytes(),
                number: Some(self.interval_ns as f64 / 1e9),
            },
            _ => text(""),
        }
    }

    fn region_cell(&self, field: &Field, style: &Style) -> Cell {
        let Some(region) = self.region() else {
            return text("");
        };
        // Of a group it is a sum, which not all fields need.
        let (start, len) = (|| self.span().0, || self.span().1);
        let size = |sectors: u64| self.size(sectors as f64, style);
        let is_group = matches!(self.object, Object::Group(..));
        let area = match self.object {
            Object::Area(_, area) => area,
            _ => 0,
        };
        match field.name {
            "region_id" => match self.object {
                Object::Group(_, group) => beyond(group.members.to_string()),
                _ => number(region.id.into()),
            },
            "region_start" => size(if is_group { start() } else { region.start }),
            "region_len" => size(if is_group { len() } else { region.len }),
            "area_id" => number(area),
            "area_start" => size(start()),
            "area_len" => size(match self.object {
                Object::Area(..) | Object::Group(..) => len(),
                Object::Region(region) => region.step.min(region.len),
            }),
            "area_offset" => size(start().saturating_sub(region.start)),
            "area_count" => number(if is_group { 1 } else { region.areas() }),
            "group_id" => self
                .group()
                .map_or_else(|| beyond("-"), |(id, _)| number(id.into())),
            "program_id" => text(region.program.clone()),
            "user_data" => text(if is_group {
                Vec::new()
            } else {
                region.user.clone()
            }),
            "precise" => text(if region.precise { "1" } else { "0" }),
            "hist_bins" => {
                let bounds = self.bounds().len();
                text((if bounds == 0 { 0 } else { bounds + 1 }).to_string())
            }
            "hist_bounds" => text(labels(self.bounds(), style, Bins::Bounds).join(",")),
            "hist_ranges" => text(labels(self.bounds(), style, Bins::Ranges).join(",")),
            "stats_name" => text(self.name()),
            "obj_type" => text(self.kind()),
            _ => text(""),
        }
    }

    fn histogram(&self, style: &Style, percent: bool, bins: Bins) -> Cell {
        let total: u64 = self
            .bins
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count));
        let labels = match bins {
            Bins::None => vec![String::new(); self.bins.len()],
            _ => labels(self.bounds(), style, bins),
        };
        let label_width = if style.time_suffix { 6 } else { 10 };
        let mut words = Vec::new();
        for (count, label) in self.bins.iter().zip(&labels) {
            let share = if total == 0 {
                0.0
            } else {
                *count as f64 * 100.0 / total as f64
            };
            let value = if percent {
                format!("{share:.2}%")
            } else {
                count.to_string()
            };
            // A label that is wider than others takes from the room of its value, and a range that is
            // narrower gives it more.
            let value_width = if percent { 7usize } else { 6 };
            let room = (label_width + value_width).saturating_sub(label.len());
            words.push(match (style.padded, bins) {
                (false, Bins::None) => value,
                (false, _) => format!("{label}:{value}"),
                (true, Bins::None) => format!("{value:>value_width$}"),
                (true, Bins::Ranges) if label.contains('-') => format!("{label}:{value:>room$}"),
                (true, _) => format!("{label:>label_width$}:{value:>0$}", room.min(value_width)),
            });
        }
        text(words.join(match (style.padded, bins) {
            (false, _) => ":",
            (true, Bins::None) => "",
            (true, _) => ",",
        }))
    }
}

/// How the bins of a histogram are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bins {
    None,
    Bounds,
    Ranges,
}

/// A label for each bin: the lower bound, or both.
fn labels(bounds: &[u64], style: &Style, bins: Bins) -> Vec<String> {
    let show = |ns: u64| {
        if style.time_suffix {
            time(ns)
        } else {
            ns.to_string()
        }
    };
    if bounds.is_empty() {
        return Vec::new();
    }
    let lower = std::iter::once(0).chain(bounds.iter().copied());
    let upper = bounds.iter().map(Some).chain(std::iter::once(None));
    lower
        .zip(upper)
        .map(|(lower, upper)| match (bins, upper) {
            (Bins::Ranges, Some(upper)) => format!("{}-{}", show(lower), show(*upper)),
            (Bins::Ranges, None) => format!(">{}", show(lower)),
            _ => show(lower),
        })
        .collect()
}
