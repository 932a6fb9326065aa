// SPDX-License-Identifier: GPL-2.0

//! Starts the daemon that follows a file.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::follow::Mode;
use crate::Error;
use crate::Result;

const NAME: &str = "dmfilemapd";

/// Beside the program that runs, else wherever programs are.
fn program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name(NAME));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| NAME.into())
}

/// Starts `dmfilemapd` for an open file, its group and its absolute path. With `foreground` it takes the place of this
/// process, and there is only an error to return. Else this returns when it follows the file, or has said on stderr
/// why it does not. `verbose` is from 0 to 3; above 0 the daemon goes on to write to stderr.
pub fn filemapd(
    file: &File,
    group: u32,
    path: &Path,
    mode: Mode,
    foreground: bool,
    verbose: u8,
) -> Result<()> {
    if !path.is_absolute() || verbose > 3 {
        return Err(Error::Invalid(format!(
            "The path must be absolute, and the log level from 0 to 3: {} {verbose}",
            path.display()
        )));
    }
    let io = |source| Error::Io {
        what: format!("Cannot run {NAME}"),
        source,
    };
    let mut command = Command::new(program());
    command
        .arg("0")
        .arg(group.to_string())
        .arg(path)
        .arg(mode.to_string())
        .arg(u8::from(foreground).to_string())
        .arg(verbose.to_string())
        .stdin(file.try_clone().map_err(io)?);
    if foreground {
        return Err(io(command.exec()));
    }
    if command.status().map_err(io)?.success() {
        Ok(())
    } else {
        Err(Error::Invalid(format!("{NAME} did not start")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_nonsense_starts_nothing() {
        let file = File::open("/dev/null").unwrap();
        assert!(filemapd(&file, 0, Path::new("relative"), Mode::Inode, false, 0).is_err());
        assert!(filemapd(&file, 0, Path::new("/dev/null"), Mode::Inode, false, 4).is_err());
    }
}
