"""The limit of open files: raised as far as needed, and never more connections than it allows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.servers import ROOT

CHILD = """
import resource, sys
from couponapp.server import open_files
from couponapp.errors import ConfigurationError
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
try:
    print(open_files.connections(500, others=100), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except ConfigurationError as error:
    print(error)
"""


def under(soft: int, hard: int) -> str:
    """What a process says for which the system allows so many."""
    command = [sys.executable, "-c", CHILD, str(soft), str(hard)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (700, 900, "500 700"),  # enough: left as it is
        (256, 900, "500 600"),  # raised to what is needed
        (256, 400, "300 400"),  # raised as far as it may be; fewer connections
        (150, 150, "50 150"),
        (100, 149, "ulimit -n is 149: the web server needs 150 or more"),
    ],
)
def test_connections_are_as_many_as_the_limit_allows(soft: int, hard: int, expected: str) -> None:
    assert under(soft, hard) == expected
