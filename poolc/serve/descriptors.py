"""How many files and sockets this process may have open."""

from __future__ import annotations

import sys

# Container runtimes allow a billion, of which nobody has use.
_MOST = 1 << 20


def allow_many() -> None:
    """Raise the soft limit, often 1,024, as far as the system lets: every connection takes one.

    The soft limit is that low for programs that use select(2), and this is none.
    """
    if sys.platform == "win32":  # no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
