"""For `--targets=suites.meta.torn`: a run that began afresh is killed amid writing its second case to the journal."""

from __future__ import annotations

import os
import signal
from typing import Any

from fixtures.journal import Journal
from fixtures.results import json_line

whole = Journal._put
written: list[bool] = []


def torn(self: Journal, value: Any) -> None:
    """Write the header and one record whole, and half of the next; all of it where the header is from another run."""
    written.append("key" in value)
    if len(written) < 3 or not written[0]:
        whole(self, value)
        return
    line = json_line(value)
    self._file.write(line[: len(line) // 2])
    self._file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


Journal._put = torn  # type: ignore[method-assign]
