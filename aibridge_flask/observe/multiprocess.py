"""The folder in which the workers of one server count together, each in files of its own; whoever is
scraped adds them up: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "aibridge-metrics-"
_COUNTS = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_\d+\.db")
_DEAD = 0  # no process has this id
_TRIES = 3
_begun: list[Path] = []
_made: list[Path] = []


def set_up(joins: bool) -> None:
    """For a server's master, before prometheus_client is imported; at a reload nothing changes. The
    folder that the operator named is cleared, unless this master `joins` one that still serves."""
    if _begun:
        return
    given = os.environ.get(VARIABLE, "")
    if not given or Path(given).name.startswith(_PREFIX):  # another master's
        _made.append(Path(tempfile.mkdtemp(prefix=_PREFIX)))
        os.environ[VARIABLE] = str(_made[0])
    folder = Path(os.environ[VARIABLE])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in [] if joins else _counts(folder):
        path.unlink()
    _begun.append(folder)


def merge_dead_worker(pid: int) -> None:
    """A worker is dead: what it had under way is over, what it counted stays. The dead share one
    file of each type, or every reload would leave some."""
    for folder in _begun:
        with _locked(folder, fcntl.LOCK_EX):
            for path in folder.glob(f"gauge_live*_{pid}.db"):
                path.unlink()
            for kind in ("counter", "histogram"):
                _add(folder / f"{kind}_{pid}.db", folder / f"{kind}_{_DEAD}.db")


def tear_down() -> None:
    """The server is over."""
    while _made:
        shutil.rmtree(_made.pop(), ignore_errors=True)


def families() -> list[Any]:
    """What all workers counted. Reads files, and takes no lock that greenlets know."""
    from prometheus_client.multiprocess import MultiProcessCollector

    folder = Path(os.environ[VARIABLE])
    for left in reversed(range(_TRIES)):
        try:
            with _locked(folder, fcntl.LOCK_SH):
                return list(MultiProcessCollector.merge(map(str, _counts(folder))))
        except (OSError, struct.error):  # a worker that just begins has an empty file
            if not left:
                raise
    return []


def _counts(folder: Path) -> list[Path]:
    """The folder may be one where other things stand too."""
    return [path for path in folder.iterdir() if _COUNTS.fullmatch(path.name)]


def _add(path: Path, to: Path) -> None:
    if not path.exists():
        return
    from prometheus_client.mmap_dict import MmapedDict

    total = MmapedDict(str(to))
    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
        total.write_value(key, total.read_value(key)[0] + value, 0.0)
    total.close()
    path.unlink()


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, how)
        yield
    finally:
        os.close(file)
