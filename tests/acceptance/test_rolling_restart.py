"""Web servers are replaced one after the other, in short; `make faults` has it under an event's load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest

from loadtest.driver.http_client import HttpConnection, Reply
from loadtest.faults import on_restart
from loadtest.faults.fault import Stage
from loadtest.faults.judge import broken_records
from loadtest.faults.load import attempt
from loadtest.faults.on_restart import Instances
from loadtest.testbed.reverse_proxy import ReverseProxy, Upstream
from loadtest.testbed.service import running_service

CLIENTS = 4
# A hundred requests a second from each of them leave the machine time for the servers that start.
PAUSE_S = 0.01
STOCK = 100_000
# Nobody is to be refused because the machine is busy with something else.
PATIENT_MS = "10000"


class Careless(ReverseProxy):
    """Passes requests on to a web server that is about to go."""

    def take_out(self, upstream: Upstream) -> None:
        """Nothing."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        service = stack.enter_context(running_service(COUPON_DEADLINE_MS=PATIENT_MS))
        stage = Stage(service, 0, service.new_coupon(STOCK))
        stage.port = on_restart.behind_proxy(stage, stack)
        yield stage


@contextmanager
def pressed(stage: Stage) -> Iterator[dict[str, Reply]]:
    """A few clients attempt again and again until the block ends; the answers by user."""
    over, numbers, answers = threading.Event(), count(), dict[str, Reply]()

    def run() -> None:
        connection = HttpConnection(stage.port)
        while not over.wait(PAUSE_S):
            user = f"user-{next(numbers)}"
            answers[user] = connection.exchange(attempt(stage, user))
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as executor:
        running = [executor.submit(run) for _ in range(CLIENTS)]
        try:
            yield answers
        finally:
            over.set()
            for one in running:
                one.result(30)


def test_while_web_servers_are_replaced_in_turn_everybody_is_served(stage: Stage) -> None:
    before = [server.process.pid for server in instances(stage).servers.values()]
    with pressed(stage) as answers, on_restart.restarted_in_turn(stage):
        pass
    after = [server.process.pid for server in instances(stage).servers.values()]
    assert not set(before) & set(after)
    assert {reply.status for reply in answers.values()} == {201}
    assert stage.broken == []
    told = {(user, reply.issuance) for user, reply in answers.items()}
    assert broken_records(stage.service.postgres.url, told) == []


def test_where_they_are_not_taken_out_of_the_proxy_first_it_is_noticed(stage: Stage) -> None:
    # The negative control of the test above.
    servers = instances(stage).servers
    careless = Careless(list(servers))
    stage.port, stage.fixture = careless.port, Instances(careless, servers)
    with pressed(stage) as answers, on_restart.restarted_in_turn(stage):
        pass
    careless.close()
    assert 502 in {reply.status for reply in answers.values()}


def instances(stage: Stage) -> Instances:
    assert isinstance(stage.fixture, Instances)
    return stage.fixture
