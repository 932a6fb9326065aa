# SPDX-License-Identifier: GPL-2.0
"""A copy of the sources, to be spoilt and built: a test must notice a module with a fault."""

import contextlib
import pathlib
import shutil
import subprocess
import tempfile

from . import places


class Workshop:
    """Builds modules with one fault each."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dm-faults-"))
        files = subprocess.run(
            ["git", "ls-files", "-z", "Kbuild", "drivers", "rust", "tools"],
            cwd=places.TOP, stdout=subprocess.PIPE, check=True,
        ).stdout.decode().split("\0")
        for file in filter(None, files):
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(places.TOP / file, self.folder / file)

    def close(self):
        """Removes the copy."""
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def fault(self, file, *changes):
        """The copy has some changes of a file: pairs of what is there and what shall be."""
        path = self.folder / file
        good = path.read_text()
        text = good
        for old, new in changes:
            assert text.count(old) == 1, f"{file} has changed: this fault must be made in another way: {old}"
            text = text.replace(old, new)
        path.write_text(text)
        try:
            yield
        finally:
            path.write_text(good)

    def modules(self):
        """The folder of the modules, built from the copy as it is."""
        built = subprocess.run(
            [self.folder / "tools/setup/build"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )
        assert built.returncode == 0, built.stdout
        return self.folder / "build" / places.kernel()

    def spoilt(self, module, file, *changes):
        """The path of this module, built with a fault."""
        with self.fault(file, *changes):
            return self.modules() / f"{module}.ko"
