"""The comparison of worker classes tells what was seen, also where nothing was."""

from __future__ import annotations

import socket

import pytest

from loadtest import worker_classes
from loadtest.worker_classes import CLASSES, HALVES, OURS, Seen, ask_again_and_again, issue_for, table


def test_the_table_tells_ratios_and_clients_that_gave_up() -> None:
    seen = {
        name: Seen([200.0], [0.01] * 100, 0.5, {what: [] for what in HALVES}, dict.fromkeys(HALVES, 3))
        for name in CLASSES
    }
    seen[OURS] = Seen([100.0, 400.0], [0.02] * 100, 0.25, {what: [0.001] * 10 for what in HALVES})
    seen["gthread, 8 threads"].rates = [50.0, 100.0]
    for name in CLASSES:
        seen[name].rates = (seen[name].rates * 2)[:2]
    rows = {line[:24].strip(): line[24:].split() for line in table(seen).splitlines()[3:]}
    assert rows[OURS] == ["250", "1.00", "20", "2.50", *["1.0", "1.0", "0%"] * 2]
    assert rows["gthread, 8 threads"] == ["75", "0.38", "10", "5.00", *["-", "-", "100%"] * 2]


def test_a_server_that_never_answers_has_lost_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_classes, "PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answered_s, lost = ask_again_and_again(server.getsockname()[1], 0.2)
    assert answered_s == []
    assert lost >= 1


def test_an_answer_that_is_no_201_ends_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RuntimeError, match="NO_ANSWER"):
        issue_for(port, [b"x"] * 100, 0.2)
