"""The operators' switches in a process: the last known values, which never block a reader."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from couponapp.errors import Unavailable
from couponapp.guards.switch_reader import SwitchReader
from tests.support.clock import Clock
from tests.support.servers import wait_until


class Source:
    """What is decided; can fail and can be held up."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.reads = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()

    def __call__(self) -> dict[str, str]:
        self.reads += 1
        self.asked.set()
        assert self.gate.wait(20)
        if self.error:
            raise self.error
        return self.values


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def switches(source: Source) -> SwitchReader:
    return SwitchReader(source)


def test_a_value_is_known_after_the_next_read(source: Source, switches: SwitchReader) -> None:
    source.values = {"limit": "5/minute"}
    assert switches.value("limit") is None
    assert switches.refresh()
    assert switches.value("limit") == "5/minute"
    assert switches.value("another") is None


def test_a_listener_is_called_for_changes_of_its_switch_only(source: Source, switches: SwitchReader) -> None:
    told: list[str | None] = []
    switches.on_change("breaker", told.append)
    for values in ({}, {"breaker": "open"}, {"breaker": "open", "limit": "1"}, {"breaker": "auto"}, {"limit": "1"}):
        source.values = dict(values)
        switches.refresh()
    assert told == ["open", "auto", None]


@pytest.mark.parametrize("error", [Unavailable(), RuntimeError("no such table")])
def test_values_that_cannot_be_read_stay(
    source: Source, switches: SwitchReader, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    switches.on_change("breaker", told.append)
    source.values = {"breaker": "open"}
    switches.refresh()
    source.error = error
    assert [switches.refresh() for _ in range(5)] == [False] * 5
    assert (switches.value("breaker"), told) == ("open", ["open"])
    source.error = None
    assert switches.refresh()
    # Two lines for an outage, however long it is.
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["switch breaker"] + ["switches"] * 2


def test_a_value_that_its_listener_refuses_has_no_effect_and_does_not_stop_other_listeners(
    source: Source, switches: SwitchReader
) -> None:
    forced = 0

    def force(value: str | None) -> None:
        nonlocal forced
        forced = int(value or 0)

    told: list[str | None] = []
    switches.on_change("a", force)
    switches.on_change("b", told.append)
    source.values = {"a": "1", "b": "1"}
    switches.refresh()
    source.values = {"a": "nonsense", "b": "2"}
    switches.refresh()
    assert (forced, told) == (1, ["1", "2"])


def test_a_read_that_hangs_blocks_no_caller(source: Source, switches: SwitchReader) -> None:
    source.values = {"limit": "5/minute"}
    switches.refresh()
    source.gate.clear()
    source.asked.clear()
    with ThreadPoolExecutor(1) as executor:
        reading = executor.submit(switches.refresh)
        assert source.asked.wait(20)
        try:
            assert [switches.value("limit") for _ in range(1000)] == ["5/minute"] * 1000
            assert not reading.done()
        finally:
            source.gate.set()


def test_the_age_counts_from_the_last_successful_read(source: Source) -> None:
    clock = Clock()
    switches = SwitchReader(source, clock)
    clock.now_s += 3
    assert switches.age_s() == 3  # never read
    switches.refresh()
    clock.now_s += 2
    source.error = Unavailable()
    switches.refresh()
    assert switches.age_s() == 2


def test_the_watch_reads_on_through_failures_until_the_process_ends(source: Source, switches: SwitchReader) -> None:
    ending = threading.Event()
    source.error = Unavailable()
    watcher = threading.Thread(target=switches.watch, args=(ending,), kwargs={"every_s": 0.001})
    watcher.start()
    wait_until(lambda: source.reads >= 3, timeout_s=10, what="it reads on")
    ending.set()
    watcher.join(10)
    assert not watcher.is_alive()
