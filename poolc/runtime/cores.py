"""How many cores this process may use, the one thread pool sized to them, and who computes now.

Knows nothing about models. The host's core count is the wrong answer in a container: affinity and
the cgroup's CPU quota decide.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_OWN_THREADS = Path("/proc/self/task")
_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_computing = 0  # threads that run micro-batches now, of all engines
_niceness = 0  # of the executor's threads, on top of the process' own
_processes = 1  # that share the cores equally, this one among them
_most_cores: int | None = None  # what somebody else, who shares out the machine, lets this one use


@cache
def allowed_cores() -> int:
    """Return the number of cores allowed by affinity and cgroup quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    allowed = min(cores, math.ceil(quota)) if quota else cores
    if _most_cores is not None:
        allowed = min(allowed, _most_cores)
    return max(1, math.ceil(allowed / _processes))


def share_cores(processes: int) -> None:
    """Use an equal share of the cores from now on: this is one of so many processes.

    To be called before anything is loaded.
    """
    global _processes
    _processes = processes
    allowed_cores.cache_clear()


def compute_behind(niceness: int) -> None:
    """Let micro-batches give way to this process' other threads, by so much niceness.

    Only Linux gives every thread its own (setpriority(2), notes). To be called before anything is
    loaded.
    """
    global _niceness
    _niceness = niceness


def _give_way() -> None:
    if _niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, now + _niceness)


def limit_cores(most: int) -> None:
    """Use no more than so many cores from now on. To be called before anything is loaded."""
    global _most_cores
    _most_cores = most
    allowed_cores.cache_clear()


def _cgroup_quota() -> float | None:
    """Return the CPU quota in cores, of cgroup v2 or v1; None where there is none.

    The smallest of the process's own group and those around it holds.
    """
    quotas = [_quota(folder) for folder in _cgroup_folders()]
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroup_folders() -> Iterator[Path]:
    """Yield the folders of the groups that this process may be in, and of those around them.

    In a container its group is often mounted as the root, whatever its path is outside: folders
    need not exist, and the roots are always among them.
    """
    groups = {_CGROUP: PurePosixPath("/"), _CGROUP / "cpu": PurePosixPath("/")}
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if not controllers:  # v2, alone or beside v1
            groups[_CGROUP] = groups[_CGROUP / "unified"] = PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            groups[_CGROUP / "cpu"] = groups[_CGROUP / controllers] = PurePosixPath(path)
    for root, own in groups.items():
        inside = () if ".." in own.parts else own.parts[1:]  # else: not below this mount
        for depth in range(len(inside) + 1):
            yield root.joinpath(*inside[:depth])


def _quota(folder: Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None


def native_threads() -> frozenset[int]:
    """Return the system's ids of this process' threads that Python did not start; Linux only."""
    try:
        found = set(map(int, os.listdir(_OWN_THREADS)))
    except OSError:
        return frozenset()
    return frozenset(found - {thread.native_id for thread in threading.enumerate()})


def thread_cpu_s(thread: int) -> float:
    """Return the processor time of one of this process' threads so far; 0 once it has ended."""
    try:
        return stat_cpu_s(_OWN_THREADS / str(thread))
    except OSError:
        return 0.0


def stat_cpu_s(folder: Path) -> float:
    """Return the processor time that a process' or thread's folder of /proc tells. Raises OSError.

    Format: proc_pid_stat(5), utime and stime.
    """
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shared_executor() -> ThreadPoolExecutor:
    """Return the process's one executor; every engine submits its micro-batches here."""
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(
                allowed_cores(), thread_name_prefix="poolc-stream", initializer=_give_way
            )
        return _executor


@contextmanager
def computing() -> Iterator[int]:
    """Count the calling thread among those that compute; yields how many others do."""
    global _computing
    with _lock:
        others, _computing = _computing, _computing + 1
    try:
        yield others
    finally:
        with _lock:
            _computing -= 1


def nobody_computes() -> bool:
    """Return whether no thread computes now; another one may begin any time."""
    return _computing == 0


def _forget_executor() -> None:
    # Threads do not survive fork: a child that embeds needs a pool of its own.
    global _executor, _lock, _computing
    _executor, _lock, _computing = None, threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_executor)
