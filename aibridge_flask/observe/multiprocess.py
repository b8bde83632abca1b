"""The common folder of the workers' metrics. Each worker counts in files of its own; a scrape adds them up.

https://prometheus.github.io/client_python/multiprocess/
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
_METRIC_FILE = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_\d+\.db")
_DEAD_PID = 0  # no process has this id
_ATTEMPTS = 3
_folders: list[Path] = []  # the folder in use, or none
_created: list[Path] = []  # the folder to remove at the end, or none


def set_up(keeps_counts: bool) -> None:
    """Sets the folder up; called by a server's master before prometheus_client is imported.

    A second call, at a reload, changes nothing. A folder that the operator configured is cleared, unless the
    master takes over from one that still serves (`keeps_counts`).
    """
    if _folders:
        return
    configured = os.environ.get(VARIABLE, "")
    if not configured or Path(configured).name.startswith(_PREFIX):  # another master's
        _created.append(Path(tempfile.mkdtemp(prefix=_PREFIX)))
        os.environ[VARIABLE] = str(_created[0])
    folder = Path(os.environ[VARIABLE])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in [] if keeps_counts else _metric_files(folder):
        path.unlink()
    _folders.append(folder)


def merge_dead_worker(pid: int) -> None:
    """Keeps the counts of a dead worker, and drops its gauges of work in progress.

    All dead workers share one file per type, or each reload would leave some.
    """
    for folder in _folders:
        with _locked(folder, fcntl.LOCK_EX):
            for path in folder.glob(f"gauge_live*_{pid}.db"):
                path.unlink()
            for kind in ("counter", "histogram"):
                _add_counts(folder / f"{kind}_{pid}.db", folder / f"{kind}_{_DEAD_PID}.db")


def tear_down() -> None:
    """Removes a folder that was created here."""
    while _created:
        shutil.rmtree(_created.pop(), ignore_errors=True)


def collect_families() -> list[Any]:
    """Returns the metrics of all workers. Reads files, and takes no lock that greenlets use."""
    from prometheus_client.multiprocess import MultiProcessCollector

    folder = Path(os.environ[VARIABLE])
    for remaining in reversed(range(_ATTEMPTS)):
        try:
            with _locked(folder, fcntl.LOCK_SH):
                # a worker that is starting has an empty file
                files = [str(path) for path in _metric_files(folder) if path.stat().st_size]
                return list(MultiProcessCollector.merge(files))
        except (OSError, struct.error):  # a file was removed or cut meanwhile
            if not remaining:
                raise
    return []


def _metric_files(folder: Path) -> list[Path]:
    """Lists the metric files: the folder may hold other files too."""
    return [path for path in folder.iterdir() if _METRIC_FILE.fullmatch(path.name)]


def _add_counts(path: Path, to: Path) -> None:
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
