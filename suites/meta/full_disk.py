"""For `--targets=suites.meta.full_disk`: the build folder's disk has 1 MB left."""

from functools import partial
from types import SimpleNamespace

from fixtures import book, journal

vars(book)["prepare_build_folder"] = partial(
    journal.prepare_build_folder, disk_usage=lambda _: SimpleNamespace(free=2**20)
)
