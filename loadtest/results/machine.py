"""What was measured on what: the machine, the commit, the settings of the service."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from loadtest.testbed.service import ROOT

# Settings whose names contain these are secrets, or addresses and directories of one run.
_NOT_SHOWN = re.compile("SECRET|URL|JWKS|_DIR")


def machine() -> dict[str, Any]:
    """Describe this machine, and how busy it is already."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "processors": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
    }


def publishable(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description of a machine without the tag of whoever built its system."""
    kernel = re.match(r"\S+ [0-9]+(\.[0-9]+)?", machine["system"])
    return {**machine, "system": kernel[0] if kernel else machine["system"]}


def in_words(machine: Mapping[str, Any]) -> str:
    """Return a description of a machine in one line."""
    gigabytes = machine["memory_bytes"] / 2**30
    return (
        f"{machine['processors']} processors ({machine['processor']}), {gigabytes:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}; load average before: {machine['load_average_before'][0]}"
    )


def revision() -> str:
    """Return the current commit, with a plus where files were changed; empty outside of a checkout."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def shown_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the service's settings without secrets, addresses and directories."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(("COUPON_", "WEB_")) and not _NOT_SHOWN.search(name)
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8") if information.exists() else ""
    named = re.search(r"^model name\s*: *(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()
