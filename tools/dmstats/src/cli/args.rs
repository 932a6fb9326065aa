// SPDX-License-Identifier: GPL-2.0

//! The command line. As with GNU's getopt, options may be anywhere, and may be cut short as long as it is clear
//! which is meant.

use std::ffi::OsString;

use clap::ArgAction;
use clap::Parser;
use dmstats::follow::Mode;

/// How a report is headed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headings {
    None,
    Abbrev,
    Full,
}

fn headings(text: &str) -> Result<Headings, String> {
    match text {
        "none" | "0" => Ok(Headings::None),
        "abbrev" | "1" => Ok(Headings::Abbrev),
        "full" | "2" => Ok(Headings::Full),
        _ => Err("unknown headings type: none, abbrev or full".into()),
    }
}

fn sectors(text: &str) -> Result<u64, String> {
    super::units::sectors(text)
        .ok_or_else(|| "not a size: sectors, or a number with one of bskmgtpe, BSKMGTPE".into())
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds: &f64| (0.001..=1e9).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds, 0.001 at least".into())
}

fn units(text: &str) -> Result<super::units::Units, String> {
    super::units::Units::parse(text).ok_or_else(|| {
        "not a unit: one of hbskmgtpeHBSKMGTPErR, or a number and one of them".into()
    })
}

fn bounds(text: &str) -> Result<Bounds, String> {
    dmstats::bounds::parse(text)
        .map(Bounds)
        .map_err(|error| error.to_string())
}

/// The bounds of a histogram, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds(pub Vec<u64>);

/// Statistics of device-mapper devices, and of files on them
///
/// Commands: clear, create, delete, group, list, print, report, ungroup, update_filemap, completion, help, version.
/// Devices are named by name, by /dev/mapper/NAME, or with -u or -j and -m. `dmstats help -o help` lists the fields.
#[derive(Parser, Debug)]
#[command(
    name = "dmstats",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    max_term_width = 100
)]
pub struct Args {
    /// What to do
    pub command: Option<String>,
    /// Devices; files with --filemap and update_filemap
    pub names: Vec<OsString>,

    /// A name for a new group
    #[arg(long)]
    pub alias: Option<OsString>,
    /// All devices
    #[arg(long)]
    pub alldevices: bool,
    /// Regions of all programs
    #[arg(long, conflicts_with = "programid")]
    pub allprograms: bool,
    /// All regions
    #[arg(long)]
    pub allregions: bool,
    /// Rows of areas
    #[arg(long)]
    pub area: bool,
    /// Into how many areas a new region is split
    #[arg(long, conflicts_with = "areasize")]
    pub areas: Option<u32>,
    /// The size of the areas of a new region
    #[arg(long, value_parser = sectors)]
    pub areasize: Option<u64>,
    /// The bounds of a histogram: 10us,1ms,2s
    #[arg(long, value_parser = bounds)]
    pub bounds: Option<Bounds>,
    /// Set the counters to zero after print
    #[arg(long)]
    pub clear: bool,
    /// With help, list the fields too; else taken for LVM2's sake
    #[arg(long, short = 'c', short_alias = 'C')]
    pub columns: bool,
    /// How many reports; 0 for no end
    #[arg(long)]
    pub count: Option<u64>,
    /// Make regions for the extents of files
    #[arg(long)]
    pub filemap: bool,
    /// With a file, what to follow: `inode`, the file whatever its name, or `path`, what has the name
    #[arg(long, value_name = "inode|path")]
    pub follow: Option<Mode>,
    /// Allow an empty program ID
    #[arg(long, short)]
    pub force: bool,
    /// Follow the file in the foreground, as dmfilemapd does
    #[arg(long)]
    pub foreground: bool,
    /// Rows of groups
    #[arg(long)]
    pub group: bool,
    #[arg(long)]
    pub groupid: Option<u32>,
    #[arg(long, value_parser = headings)]
    pub headings: Option<Headings>,
    /// Report histograms
    #[arg(long)]
    pub histogram: bool,
    /// Seconds between two reports, also parts of one
    #[arg(long, value_parser = interval)]
    pub interval: Option<f64>,
    /// JSON instead of text; a line for each report
    #[arg(long)]
    pub json: bool,
    /// Report differences without setting the counters to zero, which other programs may read too
    #[arg(long)]
    pub keep: bool,
    #[arg(long, value_parser = sectors)]
    pub length: Option<u64>,
    #[arg(long, short = 'j', requires = "minor")]
    pub major: Option<u32>,
    #[arg(long, short = 'm', requires = "major")]
    pub minor: Option<u32>,
    /// Report as DM_NAME='value'
    #[arg(long)]
    pub nameprefixes: bool,
    /// Make no group
    #[arg(long)]
    pub nogroup: bool,
    #[arg(long)]
    pub noheadings: bool,
    /// Do not start dmfilemapd, which follows the file as it changes
    #[arg(long)]
    pub nomonitor: bool,
    /// Taken for LVM2's sake: sizes in a fixed unit have no suffix anyway
    #[arg(long)]
    pub nosuffix: bool,
    /// Do not write a file's new blocks to the device first; those without a place there are left out
    #[arg(long)]
    pub nosync: bool,
    /// Times without units
    #[arg(long)]
    pub notimesuffix: bool,
    /// The fields of a report
    #[arg(long, short = 'o')]
    pub options: Option<String>,
    /// A region for each extent of a file, however many there are
    #[arg(long, conflicts_with = "projected")]
    pub perextent: bool,
    /// Tell what create would make and what it would cost, and make nothing
    #[arg(long)]
    pub plan: bool,
    /// Count in nanoseconds
    #[arg(long)]
    pub precise: bool,
    #[arg(long)]
    pub programid: Option<OsString>,
    /// A few regions over a file, of whose areas the file's are counted, as for a file of many extents
    #[arg(long)]
    pub projected: bool,
    /// Report counters, not what they mean
    #[arg(long)]
    pub raw: bool,
    /// Rows of regions
    #[arg(long)]
    pub region: bool,
    #[arg(long)]
    pub regionid: Option<u32>,
    /// The regions of a new group: 0-3,7
    #[arg(long)]
    pub regions: Option<String>,
    /// Report histograms in percent
    #[arg(long)]
    pub relative: bool,
    /// Report each field in a line
    #[arg(long)]
    pub rows: bool,
    /// A region for each target of the device's table
    #[arg(long)]
    pub segments: bool,
    /// Which rows to report; `-S help` tells how
    #[arg(long, short = 'S')]
    pub select: Option<String>,
    #[arg(long)]
    pub separator: Option<String>,
    /// Fields to sort by; with - first, downwards
    #[arg(long, short = 'O', allow_hyphen_values = true)]
    pub sort: Option<String>,
    #[arg(long, value_parser = sectors)]
    pub start: Option<u64>,
    /// Taken for LVM2's sake: each report is written at once anyway
    #[arg(long)]
    pub unbuffered: bool,
    #[arg(long, value_parser = units)]
    pub units: Option<super::units::Units>,
    /// With --nameprefixes, no quotes
    #[arg(long)]
    pub unquoted: bool,
    /// A word to keep with a new region
    #[arg(long)]
    pub userdata: Option<OsString>,
    #[arg(long, short)]
    pub uuid: Option<OsString>,
    /// Say more; twice, also which regions were deleted and cleared, and how many requests it took
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// The versions of this program and of the kernel's interface
    #[arg(long)]
    pub version: bool,
}
