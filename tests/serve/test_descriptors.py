"""The limit of open descriptors, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

RAISES = """
import resource
from poolc.serve.descriptors import allow_many
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_many()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("soft", [128, 300])
def test_the_limit_is_raised_to_what_the_system_allows(soft: int) -> None:
    command = [sys.executable, "-c", RAISES.format(soft=soft, hard=300)]
    assert subprocess.run(command, check=True, capture_output=True).stdout.split() == [b"300"] * 2
