"""CPU time and memory of a process and its children, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def with_children(pid: int) -> list[int]:
    """The ids of a process and its children; none for pid 0."""
    if not pid:
        return []
    parents = {int(path.name): _read_stat(path)[1] for path in Path("/proc").iterdir() if path.name.isdigit()}
    return [pid, *(child for child, parent in parents.items() if int(parent) == pid)]


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of all threads so far, in seconds."""
    stats = [_read_stat(Path(f"/proc/{pid}")) for pid in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) * _TICK_SECONDS


def memory(pids: list[int]) -> int:
    """Resident bytes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE_BYTES


def _read_stat(folder: Path) -> list[str]:
    """The fields after the name: state, parent, ... (proc(5)); the name itself may hold blanks."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["", "0"]
