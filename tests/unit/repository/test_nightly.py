"""What CI runs: the files say what they should, and the night fails when a part of it does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # brings no types

from loadtest.load.scenarios import SCENARIOS
from tests.support.servers import ROOT

PARTS = ("load", "faults", "bench", "generated")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def steps(name: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow(name)["jobs"][job]["steps"]
    return found


@pytest.fixture
def night(tmp_path: Path) -> Any:
    """Runs a part of the night with a `make` that notes what it is asked for, and fails where told to."""
    fake = tmp_path / "make"
    fake.write_text('#!/bin/sh\necho "$@" >> "$ASKED"\ncase "$*" in *"$FAILS"*) exit 1 ;; esac\n')
    fake.chmod(0o755)

    def run(part: str, fails: str = "nothing") -> tuple[int, list[str]]:
        asked = tmp_path / "asked"
        asked.unlink(missing_ok=True)
        environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(asked), "FAILS": fails}
        done = subprocess.run([ROOT / ".ci/nightly", part], env=environ, capture_output=True, timeout=30, check=False)
        return done.returncode, asked.read_text().splitlines() if asked.exists() else []

    return run


def test_the_night_runs_every_scenario_the_faults_the_benchmark_and_the_generated_tests(night: Any) -> None:
    code, asked = night("load")
    assert code == 0
    assert set(asked) == {f"load ARGS={name}" for name in SCENARIOS}
    assert night("faults") == (0, ["faults"])
    assert night("generated") == (0, ["test ARGS=-m generated"])
    assert night("bench") == (0, ["bench ARGS=--against loadtest/bench/reference.json"])
    assert (ROOT / "loadtest/bench/reference.json").exists()


@pytest.mark.parametrize(
    ("part", "fails"), [("load", "retry-storm"), ("faults", "faults"), ("bench", "bench"), ("generated", "generated")]
)
def test_a_part_that_fails_fails_the_night_after_all_of_it_has_run(part: str, fails: str, night: Any) -> None:
    _, whole = night(part)
    assert night(part, fails) == (1, whole)


def test_a_part_that_there_is_not_is_told(night: Any) -> None:
    assert night("everything") == (2, [])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))
def test_a_workflow_pins_each_action_by_its_major_version_and_may_only_read(path: Path) -> None:
    content = workflow(path.name)
    used = [step["uses"] for job in content["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v[0-9]+", one) for one in used)
    assert content["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] for job in content["jobs"].values())


def test_the_nightly_workflow_runs_each_part_and_keeps_its_reports_also_when_it_fails() -> None:
    content = workflow("nightly.yml")
    triggers = content[True]  # YAML 1.1 reads «on» so
    assert triggers["schedule"]
    job = content["jobs"]["nightly"]
    assert job["strategy"] == {"fail-fast": False, "matrix": {"part": list(PARTS)}}
    assert any(".ci/nightly ${{ matrix.part }}" in step.get("run", "") for step in steps("nightly.yml", "nightly"))
    kept = steps("nightly.yml", "nightly")[-1]
    assert kept["if"] == "always()"
    assert kept["with"]["path"].split() == ["var/load", "var/faults", "var/bench"]


def test_the_other_workflow_runs_what_ci_runs() -> None:
    assert [step["run"] for step in steps("ci.yml", "run") if "run" in step] == [".ci/run"]


def test_the_jenkinsfile_runs_each_part_every_night_and_keeps_its_reports() -> None:
    text = (ROOT / "Jenkinsfile").read_text(encoding="utf-8")
    code = re.sub(r"//[^\n]*", "", text)
    for opening, closing in ("{}", "()"):
        assert code.count(opening) == code.count(closing)
    assert code.split()[:2] == ["pipeline", "{"]
    assert re.search(r"triggers \{\s*cron\(", code)
    for part in PARTS:
        # A failing part fails the build, and the next one runs all the same.
        assert re.search(rf"catchError\(buildResult: 'FAILURE', [^)]*\) \{{\s*sh '\.ci/nightly {part}'", code)
    assert re.search(r"always \{\s*archiveArtifacts artifacts: 'var/load/\*\*, var/faults/\*\*, var/bench/\*\*'", code)
