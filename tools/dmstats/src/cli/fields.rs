// SPDX-License-Identifier: GPL-2.0

//! The fields of a report: names, headings, and what stands in them. Names, headings, widths and the forms of
//! values are those of LVM2's `dmstats`, whose reports scripts read.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::ops::Deref;

use dmstats::bounds::bins;
use dmstats::bounds::time;
use dmstats::idmap::IdMap;
use dmstats::message::digits;
use dmstats::metrics::Metrics;
use dmstats::Count;
use dmstats::Group;
use dmstats::IdSet;
use dmstats::Region;
use dmstats::Sample;
use dmstats::Snapshot;

use super::subject::Subject;
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
    pub id: FieldId,
    pub name: &'static str,
    pub heading: &'static str,
    /// How wide its column is at least; numbers stand at its right.
    pub width: usize,
    pub right: bool,
    pub kind: Kind,
    pub section: Section,
    pub about: &'static str,
}

impl Field {
    /// Whether regions that are alike may differ in it: it tells of their place, or of what was counted in them.
    pub fn is_of_place(&self) -> bool {
        match self.section {
            Section::Region => matches!(
                self.id,
                FieldId::RegionId | FieldId::RegionStart | FieldId::AreaStart
            ),
            Section::Stats | Section::Special => true,
            _ => false,
        }
    }
}

macro_rules! fields {
    ($($section:ident $id:ident $name:ident $heading:literal $width:literal $side:ident $kind:ident $about:literal;)*) => {
        /// Which field it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FieldId {
            $($id),*
        }

        /// All fields.
        pub const FIELDS: &[Field] = &[$(Field {
            id: FieldId::$id,
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
    Name Name name "Name" 16 left Text "Name of mapped device.";
    Name MangledName mangled_name "MangledName" 16 left Text "Mangled name of mapped device.";
    Name UnmangledName unmangled_name "UnmangledName" 16 left Text "Unmangled name of mapped device.";
    Name Uuid uuid "UUID" 32 left Text "Unique (optional) identifier for mapped device.";
    Name MangledUuid mangled_uuid "MangledUUID" 32 left Text "Mangled unique (optional) identifier for mapped device.";
    Name UnmangledUuid unmangled_uuid "UnmangledUUID" 32 left Text "Unmangled unique (optional) identifier for mapped device.";
    Name ReadAhead read_ahead "RAhead" 6 right Number "Read ahead value.";
    Info Blkdevname blkdevname "BlkDevName" 16 left Text "Name of block device.";
    Info Attr attr "Stat" 4 left Text "(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite.";
    Info TablesLoaded tables_loaded "Tables" 6 left Text "Which of the live and inactive table slots are filled.";
    Info Suspended suspended "Suspended" 9 left Text "Whether the device is suspended.";
    Info Readonly readonly "Read-only" 9 left Text "Whether the device is read-only or writeable.";
    Info Devno devno "DevNo" 5 left Text "Device major and minor numbers";
    Info Major major "Maj" 3 right Number "Block device major number.";
    Info Minor minor "Min" 3 right Number "Block device minor number.";
    Info Open open "Open" 4 right Number "Number of references to open device, if requested.";
    Info Segments segments "Targ" 4 right Number "Number of segments in live table, if present.";
    Info Events events "Event" 6 right Number "Number of most recent event.";
    Deps DeviceCount device_count "#Devs" 5 right Number "Number of devices used by this one.";
    Deps DevsUsed devs_used "DevNamesUsed" 16 left Text "List of names of mapped devices used by this one.";
    Deps DevnosUsed devnos_used "DevNosUsed" 16 left Text "List of device numbers of devices used by this one.";
    Deps BlkdevsUsed blkdevs_used "BlkDevNamesUsed" 16 left Text "List of names of block devices used by this one.";
    Deps DeviceRefCount device_ref_count "#Refs" 5 right Number "Number of mapped devices referencing this one.";
    Deps NamesUsingDev names_using_dev "RefNames" 8 left Text "List of names of mapped devices using this one.";
    Deps DevnosUsingDev devnos_using_dev "RefDevNos" 9 left Text "List of device numbers of mapped devices using this one.";
    Split Subsystem subsystem "Subsys" 6 left Text "Userspace subsystem responsible for this device.";
    Split VgName vg_name "VG" 4 left Text "LVM Volume Group name.";
    Split LvName lv_name "LV" 4 left Text "LVM Logical Volume name.";
    Split LvLayer lv_layer "LVLayer" 7 left Text "LVM device layer.";
    Stats ReadCount read_count "#Reads" 6 right Number "Count of reads completed.";
    Stats ReadsMergedCount reads_merged_count "#RdMrgs" 7 right Number "Count of read requests merged.";
    Stats ReadSectorCount read_sector_count "#RdSectors" 10 right Number "Count of sectors read.";
    Stats ReadTime read_time "AccRdTime" 11 right Number "Accumulated duration of all read requests (ns).";
    Stats WriteCount write_count "#Writes" 7 right Number "Count of writes completed.";
    Stats WritesMergedCount writes_merged_count "#WrMrgs" 7 right Number "Count of write requests merged.";
    Stats WriteSectorCount write_sector_count "#WrSectors" 10 right Number "Count of sectors written.";
    Stats WriteTime write_time "AccWrTime" 11 right Number "Accumulated duration of all writes (ns).";
    Stats InProgressCount in_progress_count "#InProg" 7 right Number "Count of requests currently in progress.";
    Stats IoTicks io_ticks "IoTicks" 7 right Number "Nanoseconds spent servicing requests.";
    Stats QueueTicks queue_ticks "QueueTicks" 10 right Number "Total nanoseconds spent in queue.";
    Stats ReadTicks read_ticks "RdTicks" 7 right Number "Nanoseconds spent servicing reads.";
    Stats WriteTicks write_ticks "WrTicks" 7 right Number "Nanoseconds spent servicing writes.";
    Stats ReadsMergedPerSec reads_merged_per_sec "RMrg/s" 6 right Number "Read requests merged per second.";
    Stats WritesMergedPerSec writes_merged_per_sec "WMrg/s" 6 right Number "Write requests merged per second.";
    Stats ReadsPerSec reads_per_sec "R/s" 4 right Number "Reads per second.";
    Stats WritesPerSec writes_per_sec "W/s" 4 right Number "Writes per second.";
    Stats ReadSizePerSec read_size_per_sec "RSz/s" 5 right Size "Size of data read per second.";
    Stats WriteSizePerSec write_size_per_sec "WSz/s" 5 right Size "Size of data written per second.";
    Stats AvgRequestSize avg_request_size "AvgRqSz" 7 right Size "Average request size.";
    Stats QueueSize queue_size "QSize" 5 right Number "Average queue size.";
    Stats Await await "AWait" 5 right Number "Average wait time.";
    Stats ReadAwait read_await "RdAWait" 7 right Number "Average read wait time.";
    Stats WriteAwait write_await "WrAWait" 7 right Number "Average write wait time.";
    Stats Throughput throughput "Throughput" 10 right Number "Throughput.";
    Stats ServiceTime service_time "SvcTm" 5 right Number "Service time.";
    Stats Util util "Util%" 5 right Percent "Utilization.";
    Stats HistCount hist_count "Histogram Counts" 16 left Text "Latency histogram counts.";
    Stats HistCountBounds hist_count_bounds "Histogram Counts" 16 left Text "Latency histogram counts with bin boundaries.";
    Stats HistCountRanges hist_count_ranges "Histogram Counts" 16 left Text "Latency histogram counts with bin ranges.";
    Stats HistPercent hist_percent "Histogram%" 10 left Text "Relative latency histogram.";
    Stats HistPercentBounds hist_percent_bounds "Histogram%" 10 left Text "Relative latency histogram with bin boundaries.";
    Stats HistPercentRanges hist_percent_ranges "Histogram%" 10 left Text "Relative latency histogram with bin ranges.";
    Stats IntervalNs interval_ns "IntervalNs" 10 right Number "Sampling interval in nanoseconds.";
    Stats Interval interval "Interval" 8 right Number "Sampling interval.";
    Region RegionId region_id "RgID" 4 right Number "Region ID.";
    Region RegionStart region_start "RgStart" 7 right Size "Region start.";
    Region RegionLen region_len "RgSize" 6 right Size "Region length.";
    Region AreaId area_id "ArID" 4 right Number "Area ID.";
    Region AreaStart area_start "ArStart" 7 right Size "Area offset from start of device.";
    Region AreaLen area_len "ArSize" 6 right Size "Area length.";
    Region AreaOffset area_offset "ArOff" 5 right Size "Area offset from start of region.";
    Region AreaCount area_count "#Areas" 6 right Number "Area count.";
    Region GroupId group_id "GrpID" 5 right Number "Group ID.";
    Region ProgramId program_id "ProgID" 6 left Text "Program ID.";
    Region UserData user_data "UserData" 8 left Text "Auxiliary data.";
    Region Precise precise "Precise" 7 left Text "Set if nanosecond precision counters are enabled.";
    Region HistBins hist_bins "#Bins" 9 left Text "The number of histogram bins configured.";
    Region HistBounds hist_bounds "Histogram Bounds" 16 left Text "Latency histogram bin boundaries.";
    Region HistRanges hist_ranges "Histogram Ranges" 16 left Text "Latency histogram bin ranges.";
    Region StatsName stats_name "Name" 16 left Text "Stats name of current object.";
    Region ObjType obj_type "ObjType" 7 left Text "Type of stats object being reported.";
    Special Selected selected "Selected" 8 right Number "Set if item passes selection criteria.";
}

/// A field by its name, which may lack a `region_` at its beginning; case and underscores do not matter.
pub fn find(name: &str) -> Option<&'static Field> {
    let whole = |field: &&Field| letters(field.name).eq(letters(name));
    let part = |field: &&Field| letters(field.name).eq(letters("region").chain(letters(name)));
    let mut fields = FIELDS.iter();
    fields.find(whole).or_else(|| FIELDS.iter().find(part))
}

fn letters(name: &str) -> impl Iterator<Item = u8> + '_ {
    let bytes = name.bytes().filter(|byte| *byte != b'_');
    bytes.map(|byte| byte.to_ascii_lowercase())
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

/// A device, and what was found on it.
pub struct View<'a> {
    pub subject: Subject<'a>,
    pub snapshot: Snapshot,
    /// What was counted, if it was asked for, and in how many nanoseconds.
    pub sample: Option<Sample>,
    pub interval_ns: u64,
    /// The regions that were to be read, and could not be.
    pub unread: IdSet,
    /// What its groups are called: each of their rows says it.
    names: IdMap<Vec<u8>>,
}

impl<'a> View<'a> {
    pub fn new(subject: Subject<'a>, snapshot: Snapshot) -> Self {
        let mut names = IdMap::new();
        for (id, group) in &snapshot.groups {
            names.insert(*id, group.name().into_owned());
        }
        View {
            subject,
            snapshot,
            sample: None,
            interval_ns: 0,
            unread: IdSet::new(),
            names,
        }
    }
}

/// A row of a report.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub view: &'a View<'a>,
    pub object: Object<'a>,
    pub count: &'a Count,
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

/// What stands in a field.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Number(u64),
    /// A number with two decimals.
    Rate(f64),
    /// A number of seconds.
    Seconds(f64),
    /// A number of bytes.
    Size(f64),
    Text(Cow<'a, [u8]>),
    /// Words where a number would be; they come after all numbers.
    Beyond(Cow<'a, [u8]>),
}

impl Value<'_> {
    /// Whether both are written alike.
    #[inline]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Number(one), Value::Number(other)) => one == other,
            (Value::Rate(one), Value::Rate(other))
            | (Value::Seconds(one), Value::Seconds(other))
            | (Value::Size(one), Value::Size(other)) => one.to_bits() == other.to_bits(),
            // Most words are those of the row above, wherever they are.
            (Value::Text(one), Value::Text(other)) | (Value::Beyond(one), Value::Beyond(other)) => {
                std::ptr::eq(&**one, &**other) || one == other
            }
            _ => false,
        }
    }

    pub fn write(&self, style: &Style, out: &mut Vec<u8>) {
        match self {
            Value::Number(number) => digits(*number, out),
            Value::Rate(number) => two_decimals(*number, out),
            Value::Seconds(seconds) => out.extend(format!("{seconds:.6}").bytes()),
            Value::Size(bytes) => style.units.show(*bytes, out),
            Value::Text(words) | Value::Beyond(words) => out.extend_from_slice(words),
        }
    }

    /// What it is compared and sorted by, if not by its text.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number as f64),
            Value::Rate(number) | Value::Seconds(number) | Value::Size(number) => Some(*number),
            Value::Text(_) => None,
            Value::Beyond(_) => Some(f64::INFINITY),
        }
    }
}

fn text<'a>(words: impl Into<Cow<'a, [u8]>>) -> Value<'a> {
    Value::Text(words.into())
}

fn size<'a>(sectors: f64) -> Value<'a> {
    Value::Size(sectors * 512.0)
}

impl<'a> Row<'a> {
    /// The region that speaks for the row: its own, or the leader of its group.
    pub fn region(&self) -> Option<&'a Region> {
        match self.object {
            Object::Area(region, _) | Object::Region(region) => Some(region),
            Object::Group(id, _) => self.view.snapshot.regions.get(&id),
        }
    }

    /// The id of the group that it is, or is in.
    pub fn group(&self) -> Option<u32> {
        match self.object {
            Object::Group(id, _) => Some(id),
            Object::Area(region, _) | Object::Region(region) => region.group,
        }
    }

    /// The bounds of the row's histogram.
    pub fn bounds(&self) -> &'a [u64] {
        match self.object {
            Object::Area(region, _) | Object::Region(region) => &region.bounds,
            Object::Group(_, group) => self.view.snapshot.group_bounds(group).unwrap_or_default(),
        }
    }

    /// First sector and length of what the row is about; a group has as many sectors as its regions.
    pub fn span(&self) -> (u64, u64) {
        match self.object {
            Object::Area(region, area) => (region.area_start(area), region.area_len(area)),
            Object::Region(region) => (region.start, region.len),
            Object::Group(_, group) => {
                let members = || group.members.regions(&self.view.snapshot.regions);
                let start = members().next().map_or(0, |region| region.start);
                let sectors = members().fold(0u64, |sum, region| sum.saturating_add(region.len));
                (start, sectors)
            }
        }
    }

    /// What the row is called.
    pub fn name(&self) -> Cow<'a, [u8]> {
        let name = self.group().and_then(|id| self.view.names.get(&id));
        name.map_or_else(
            || super::names::shown(&self.view.subject.name),
            |name| Cow::Borrowed(&name[..]),
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

    /// Whether it is about a region that is like that of the other row but for its place and what was counted in it:
    /// then they differ in those fields only that [`Field::is_of_place`] tells.
    pub fn is_like(&self, other: &Row<'_>) -> bool {
        match (self.object, other.object) {
            (Object::Region(one), Object::Region(other_one)) => {
                std::ptr::eq(self.view, other.view) && one.is_like(other_one)
            }
            _ => false,
        }
    }

    /// What its counters mean.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(&self.count.counters, self.view.interval_ns)
    }

    /// The part of its counts that is estimated, if it is a file that lies under a group.
    pub fn error(&self) -> Option<f64> {
        match (self.object, &self.view.sample) {
            (Object::Group(id, _), Some(sample)) => sample.errors.get(&id).copied(),
            _ => None,
        }
    }

    /// What stands in a field, as it is compared and sorted.
    pub fn cell(&self, field: &Field, style: &Style) -> Cell {
        let metrics = LazyCell::new(|| self.metrics());
        let value = self.value(field, &metrics, style);
        let mut text = Vec::new();
        value.write(style, &mut text);
        Cell {
            text,
            number: value.number(),
        }
    }

    /// What stands in a field; `metrics` are the row's.
    #[inline]
    pub fn value(
        &self,
        field: &Field,
        metrics: &impl Deref<Target = Metrics>,
        style: &Style,
    ) -> Value<'a> {
        match field.section {
            Section::Stats => self.counted(field.id, metrics, style),
            Section::Region => self.described(field.id, style),
            Section::Special => Value::Number(1),
            _ => match self.view.subject.info() {
                Some(info) => super::names::value(info, field.id),
                None => text(b""),
            },
        }
    }

    fn counted(
        &self,
        field: FieldId,
        metrics: &impl Deref<Target = Metrics>,
        style: &Style,
    ) -> Value<'a> {
        let counters = &self.count.counters;
        match field {
            FieldId::ReadCount => Value::Number(counters.reads),
            FieldId::ReadsMergedCount => Value::Number(counters.reads_merged),
            FieldId::ReadSectorCount => Value::Number(counters.read_sectors),
            FieldId::ReadTime => Value::Number(counters.read_time),
            FieldId::WriteCount => Value::Number(counters.writes),
            FieldId::WritesMergedCount => Value::Number(counters.writes_merged),
            FieldId::WriteSectorCount => Value::Number(counters.write_sectors),
            FieldId::WriteTime => Value::Number(counters.write_time),
            FieldId::InProgressCount => Value::Number(counters.in_progress),
            FieldId::IoTicks => Value::Number(counters.io_ticks),
            FieldId::QueueTicks => Value::Number(counters.queue_ticks),
            FieldId::ReadTicks => Value::Number(counters.read_ticks),
            FieldId::WriteTicks => Value::Number(counters.write_ticks),
            FieldId::ReadsMergedPerSec => Value::Rate(metrics.reads_merged_per_sec),
            FieldId::WritesMergedPerSec => Value::Rate(metrics.writes_merged_per_sec),
            FieldId::ReadsPerSec => Value::Rate(metrics.reads_per_sec),
            FieldId::WritesPerSec => Value::Rate(metrics.writes_per_sec),
            FieldId::ReadSizePerSec => size(metrics.read_sectors_per_sec.trunc()),
            FieldId::WriteSizePerSec => size(metrics.write_sectors_per_sec.trunc()),
            FieldId::AvgRequestSize => size(metrics.average_size.trunc()),
            FieldId::QueueSize => Value::Rate(metrics.queue_size),
            FieldId::Await => Value::Rate(metrics.average_wait / 1e6),
            FieldId::ReadAwait => Value::Rate(metrics.read_wait / 1e6),
            FieldId::WriteAwait => Value::Rate(metrics.write_wait / 1e6),
            FieldId::Throughput => Value::Rate(metrics.throughput),
            FieldId::ServiceTime => Value::Rate(metrics.service_time / 1e6),
            FieldId::Util => Value::Rate(metrics.utilization * 100.0),
            FieldId::HistCount => self.histogram(style, false, Bins::None),
            FieldId::HistCountBounds => self.histogram(style, false, Bins::Bounds),
            FieldId::HistCountRanges => self.histogram(style, false, Bins::Ranges),
            FieldId::HistPercent => self.histogram(style, true, Bins::None),
            FieldId::HistPercentBounds => self.histogram(style, true, Bins::Bounds),
            FieldId::HistPercentRanges => self.histogram(style, true, Bins::Ranges),
            FieldId::IntervalNs => Value::Number(self.view.interval_ns),
            FieldId::Interval => Value::Seconds(self.view.interval_ns as f64 / 1e9),
            _ => text(b""),
        }
    }

    #[inline]
    fn described(&self, field: FieldId, style: &Style) -> Value<'a> {
        let size = |sectors: u64| size(sectors as f64);
        // A region is as its first area; a group, which is a sum, has fields of its own.
        let (region, area) = match self.object {
            Object::Area(region, area) => (region, area),
            Object::Region(region) => (region, 0),
            Object::Group(_, group) => match (field, self.region()) {
                (_, None) | (FieldId::UserData, _) => return text(b""),
                (FieldId::RegionId, _) => {
                    return Value::Beyond(group.members.to_string().into_bytes().into())
                }
                (FieldId::RegionStart | FieldId::AreaStart, _) => return size(self.span().0),
                (FieldId::RegionLen | FieldId::AreaLen, _) => return size(self.span().1),
                (FieldId::AreaCount, _) => return Value::Number(1),
                (_, Some(leader)) => (leader, 0),
            },
        };
        match field {
            FieldId::RegionId => Value::Number(region.id.into()),
            FieldId::RegionStart => size(region.start),
            FieldId::RegionLen => size(region.len),
            FieldId::AreaId => Value::Number(area),
            FieldId::AreaStart => size(region.area_start(area)),
            FieldId::AreaLen => size(region.area_len(area)),
            FieldId::AreaOffset => size(region.area_start(area) - region.start),
            FieldId::AreaCount => Value::Number(region.areas()),
            FieldId::GroupId => match self.group() {
                Some(id) => Value::Number(id.into()),
                None => Value::Beyond(b"-".into()),
            },
            FieldId::ProgramId => text(&region.program[..]),
            FieldId::UserData => text(&region.user[..]),
            FieldId::Precise => text(if region.precise { b"1" } else { b"0" }),
            FieldId::HistBins => text(bins(self.bounds()).to_string().into_bytes()),
            FieldId::HistBounds => self.labels(style, Bins::Bounds),
            FieldId::HistRanges => self.labels(style, Bins::Ranges),
            FieldId::StatsName => text(self.name()),
            FieldId::ObjType => text(self.kind().as_bytes()),
            _ => text(b""),
        }
    }

    fn labels(&self, style: &Style, bins: Bins) -> Value<'a> {
        let labels = labels(self.bounds(), style, bins);
        text(labels.join(",").into_bytes())
    }

    fn histogram(&self, style: &Style, percent: bool, bins: Bins) -> Value<'a> {
        let total: u64 = self
            .count
            .bins
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count));
        let labels = match bins {
            Bins::None => vec![String::new(); self.count.bins.len()],
            _ => labels(self.bounds(), style, bins),
        };
        let label_width = if style.time_suffix { 6 } else { 10 };
        let mut words = Vec::new();
        for (count, label) in self.count.bins.iter().zip(&labels) {
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
        let separator = match (style.padded, bins) {
            (false, _) => ":",
            (true, Bins::None) => "",
            (true, _) => ",",
        };
        text(words.join(separator).into_bytes())
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
