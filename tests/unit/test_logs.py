"""What is logged at which level, and what never is."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from couponapp import logs

VERBOSE = ("rq.worker", "rq.queue", "psycopg.pool", "flask-limiter")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Give the loggers their levels and handlers back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in VERBOSE}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def shown(name: str) -> set[str]:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    return {level for level in levels if logging.getLogger(name).isEnabledFor(logging.getLevelName(level))}


@pytest.mark.parametrize("level", ["debug", "info"])
def test_libraries_that_name_users_or_talk_a_lot_are_heard_from_a_warning_on(level: str) -> None:
    logs.configure(level)
    assert "INFO" in shown("couponapp.notifying.relay")
    for name in VERBOSE:
        assert shown(name) == {"WARNING", "ERROR"}, name


def test_at_a_higher_level_they_are_no_louder_than_the_rest() -> None:
    logs.configure("error")
    assert shown("couponapp") == shown("rq.worker") == {"ERROR"}


def test_an_event_is_one_line_with_its_level_and_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    logging.getLogger("couponapp.test").warning("the circuit opens")
    (line,) = capsys.readouterr().err.splitlines()
    assert "WARNING couponapp.test[" in line
    assert line.endswith("the circuit opens")
