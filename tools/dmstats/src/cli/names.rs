// SPDX-License-Identifier: GPL-2.0

//! Names of devices, and what else is known of them.

use std::borrow::Cow;
use std::fs;

use dmstats::DeviceInfo;

use super::fields::FieldId;
use super::fields::Value;

/// Whether a byte can stand in a name as it is; others are written as `\x20`, for udev's sake.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte)
}

/// A name as it is given to the kernel. One that has such codes already is left as it is.
pub fn mangled(name: &[u8]) -> Vec<u8> {
    if name.windows(2).any(|pair| pair == b"\\x") {
        return name.to_vec();
    }
    name.iter()
        .flat_map(|byte| {
            if plain(*byte) {
                vec![*byte]
            } else {
                format!("\\x{byte:02x}").into_bytes()
            }
        })
        .collect()
}

/// A name as people know it.
pub fn shown(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'\\') {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .strip_prefix(b"x")
            .and_then(|digits| digits.get(..2))
            .filter(|_| *first == b'\\');
        let byte =
            code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
}

fn sys(info: &DeviceInfo, what: &str) -> String {
    format!("/sys/dev/block/{}/{what}", info.devno)
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// A number of kibibytes in sectors. The kernel takes any for the read-ahead.
fn sectors(kib: &str) -> u64 {
    kib.parse::<u64>().unwrap_or_default().saturating_mul(2)
}

/// A device beside this one.
struct Other {
    /// As the kernel's block layer calls it.
    node: String,
    number: String,
    /// Its name, if it is a device of device-mapper.
    mapped: String,
}

/// The devices that this one uses (`slaves`), or that use it (`holders`).
fn others(info: &DeviceInfo, side: &str) -> Vec<Other> {
    let entries = fs::read_dir(sys(info, side))
        .into_iter()
        .flatten()
        .flatten();
    let mut all: Vec<_> = entries
        .map(|entry| {
            let node = entry.file_name().to_string_lossy().into_owned();
            let read = |what: &str| read(&sys(info, &format!("{side}/{node}/{what}")));
            Other {
                number: read("dev"),
                mapped: read("dm/name"),
                node,
            }
        })
        .collect();
    all.sort_by(|one, other| one.node.cmp(&other.node));
    all
}

fn list(others: Vec<Other>, of: fn(Other) -> String) -> Vec<u8> {
    others
        .into_iter()
        .map(of)
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(",")
        .into_bytes()
}

/// The parts of an LVM name: group, volume, layer. Single hyphens are between them, doubled ones within.
fn split(name: &[u8]) -> [String; 3] {
    let name = String::from_utf8_lossy(name).replace("--", "\0");
    let mut parts = name.splitn(3, '-').map(|part| part.replace('\0', "-"));
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// What stands in a field about the device.
pub fn value(info: &DeviceInfo, field: FieldId) -> Value<'static> {
    let lvm = info.uuid.starts_with(b"LVM-");
    let part = |index: usize| {
        if lvm {
            split(&shown(&info.name))[index].clone().into_bytes()
        } else {
            Vec::new()
        }
    };
    let flag = |set: bool, yes: &str, no: &str| {
        if set {
            yes.as_bytes().to_vec()
        } else {
            no.as_bytes().to_vec()
        }
    };
    let text = match field {
        FieldId::Name | FieldId::UnmangledName => shown(&info.name).into_owned(),
        FieldId::MangledName => mangled(&shown(&info.name)),
        FieldId::Uuid | FieldId::UnmangledUuid => shown(&info.uuid).into_owned(),
        FieldId::MangledUuid => mangled(&shown(&info.uuid)),
        FieldId::ReadAhead => {
            return Value::Number(sectors(&read(&sys(info, "queue/read_ahead_kb"))))
        }
        FieldId::Blkdevname => {
            let link = fs::read_link(format!("/sys/dev/block/{}", info.devno)).unwrap_or_default();
            link.file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
                .into_bytes()
        }
        FieldId::Attr => {
            let attr = [
                if info.live { 'L' } else { '-' },
                if info.inactive { 'I' } else { '-' },
                if info.suspended { 's' } else { '-' },
                if info.read_only { 'r' } else { 'w' },
            ];
            attr.iter().collect::<String>().into_bytes()
        }
        FieldId::TablesLoaded => match (info.live, info.inactive) {
            (true, true) => b"Both".to_vec(),
            (true, false) => b"Live".to_vec(),
            (false, true) => b"Inactive".to_vec(),
            (false, false) => b"None".to_vec(),
        },
        FieldId::Suspended => flag(info.suspended, "Suspended", "Active"),
        FieldId::Readonly => flag(info.read_only, "Read-only", "Writeable"),
        FieldId::Devno => info.devno.to_string().into_bytes(),
        FieldId::Major => return Value::Number(info.devno.major.into()),
        FieldId::Minor => return Value::Number(info.devno.minor.into()),
        FieldId::Open => return Value::Number(info.open.max(0) as u64),
        FieldId::Segments => return Value::Number(info.targets.into()),
        FieldId::Events => return Value::Number(info.events.into()),
        FieldId::DeviceCount => return Value::Number(others(info, "slaves").len() as u64),
        FieldId::DevsUsed => list(others(info, "slaves"), |other| other.mapped),
        FieldId::DevnosUsed => list(others(info, "slaves"), |other| other.number),
        FieldId::BlkdevsUsed => list(others(info, "slaves"), |other| other.node),
        FieldId::DeviceRefCount => return Value::Number(others(info, "holders").len() as u64),
        FieldId::NamesUsingDev => list(others(info, "holders"), |other| other.mapped),
        FieldId::DevnosUsingDev => list(others(info, "holders"), |other| other.number),
        FieldId::Subsystem => flag(lvm, "LVM", ""),
        FieldId::VgName => part(0),
        FieldId::LvName => part(1),
        FieldId::LvLayer => part(2),
        _ => Vec::new(),
    };
    Value::Text(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_coded_and_shown_as_lvm2_does() {
        assert_eq!(mangled(b"we ird:x"), b"we\\x20ird:x");
        assert_eq!(mangled(b"we\\x20ird"), b"we\\x20ird");
        assert_eq!(*shown(b"we\\x20ird:x"), *b"we ird:x");
        for odd in [&b"\\"[..], b"\\x", b"\\x2", b"\\xzz", b"a\\"] {
            assert_eq!(*shown(odd), *odd);
        }
    }

    #[test]
    fn no_read_ahead_is_too_large() {
        assert_eq!(sectors("128"), 256);
        assert_eq!(sectors("18014398509481980"), 36_028_797_018_963_960);
        assert_eq!(sectors("18446744073709551615"), u64::MAX);
        assert_eq!(sectors(""), 0);
    }

    #[test]
    fn names_of_lvm_have_three_parts() {
        assert_eq!(split(b"vg0-lv--x-real"), ["vg0", "lv-x", "real"]);
        assert_eq!(split(b"plain"), ["plain", "", ""]);
    }
}
