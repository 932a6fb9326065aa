# SPDX-License-Identifier: GPL-2.0
"""The disks of a cache, the cache, and its status by names."""

MIB = 2048  # sectors
STATE = "/tmp/model"  # what iomodel knows between two runs of one test

FIELDS = (
    "mode state needs_check header_sectors record_sectors records free_records record_id cursor durable_id tail_id"
    " entries valid dirty ram_bytes"
).split()


class Status:
    """A status line: the fields by their names, the 16 counters, and the pairs."""

    def __init__(self, args):
        self.text = args
        for name, word in zip(FIELDS, args, strict=False):
            setattr(self, name, int(word) if word.isdigit() else word)
        rest = args[len(FIELDS) :]
        count = int(rest[0])
        self.counters = [int(word) for word in rest[1 : 1 + count]]
        pairs = rest[1 + count :]
        assert int(pairs[0]) == len(pairs) - 1
        self.pairs = {
            key: int(value) if value.isdigit() else value for key, value in zip(pairs[1::2], pairs[2::2], strict=True)
        }

    def __getitem__(self, key):
        return self.pairs[key]


class Rig:
    """Two disks, and a cache on them."""

    def __init__(self, guest, dm, disks, mib=48):
        self.guest = guest
        self.dm = dm
        self.backing, self.cache = disks.ram(mib, 2)
        self.sectors = mib * MIB
        self.device = None

    def table(self, options=""):
        """The table line."""
        return f"0 {self.sectors} lc {self.backing} {self.cache} {options}"

    def create(self, options=""):
        """Makes the cache."""
        self.device = self.dm.create("lc", self.table(options))
        return self.device

    def again(self, options=""):
        """Takes the cache down and makes it again."""
        self.device.remove()
        return self.create(options)

    def status(self):
        """The status, by names."""
        return Status(self.device.status()[0].args)

    def wait_until(self, condition):
        """Waits for events until the status is so."""
        self.device.wait_until(lambda line: condition(Status(line.args)))
        return self.status()

    def wait_for(self, key, condition):
        """Waits until a pair of the status fulfils awk's condition on $0; for what no event tells of."""
        self.guest.run(
            f"until dmsetup status {self.device} | grep -o ' {key} [0-9]*' | cut -d' ' -f3"
            f" | awk '{{ exit !({condition}) }}'; do sleep 0.05; done"
        )

    def count_reads(self):
        """Puts a linear device over the backing disk, before the cache is made: a memory disk counts nothing."""
        self.backing = self.dm.create("counted", f"0 {self.sectors} linear {self.backing} 0")

    def reads(self):
        """How many reads the backing device has served since then."""
        minor = "$(dmsetup info --columns --noheadings -o minor counted)"
        return int(self.guest.output(f"awk '{{ print $1 }}' /sys/block/dm-{minor}/stat"))

    def superblock(self, offset):
        """A number of 8 bytes of the superblock on the disk."""
        read = f"dd if={self.cache} bs=4k count=1 iflag=direct status=none | od -An -t u8 -j {offset} -N 8"
        return int(self.guest.output(read))

    def iomodel(self, words):
        """Runs iomodel on the cache."""
        command, _, rest = words.partition(" ")
        return self.guest.run(f"iomodel {command} {self.device} {rest}")

    def begin_model(self, words=""):
        """Makes the cache over a stamped disk, for runs of iomodel with STATE."""
        self.guest.run(f"rm -f {STATE} && iomodel stamp {self.backing} 1")
        return self.create(words)

    def end_model(self):
        """Nothing was damaged, and the backing device alone has everything. Returns the last status."""
        status = self.status()
        assert status["crc_errors"] == status["read_errors"] == status["lost_sectors"] == 0
        self.device.message("flush")
        self.device.remove()
        self.guest.run(f"iomodel verify {self.backing} --source 1 --state {STATE}")
        return status

    def is_as_modelled(self, words):
        """Threads read, write and discard the same sectors, of a disk that is larger than a cache with these words.
        Returns its status at the end; then it is gone."""
        self.cache = self.dm.create("small", f"0 {20 * MIB} linear {self.cache} 0")
        self.begin_model(words)
        for seed in range(3):
            self.iomodel(f"run --source 1 --state {STATE} --seed {seed} --overlap --threads 4 --discards 3 --flushes 3"
                         " --ops 1000")
            if seed == 1:
                self.again(words)
                self.iomodel(f"verify --source 1 --state {STATE}")
        return self.end_model()
