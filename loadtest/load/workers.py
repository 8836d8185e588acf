"""The processes that send: enough of them that none is the bottleneck, and started together."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.server import open_files
from loadtest.driver.generator import Result, open_loop
from loadtest.load import plans
from loadtest.load.plans import Site
from loadtest.load.scenarios import Scenario

# What one process sends without being late, with room to spare; `generator` in the record shows
# whether that holds on the machine at hand.
RATE_PER_PROCESS = 900
# Of all processes together; a web process takes 1,000.
CONNECTIONS = 1_000
TIMEOUT_S = 10.0
# From the order to the first request: for the requests to be put into bytes.
LEAD_S = 2.0
TOKEN_TTL_S = 7_200
_PREPARE_TIMEOUT_S = 120.0
_SPARE_FILES = 64


@dataclass(frozen=True)
class Job:
    """What the generator processes need to know.

    Attributes:
        scenario: the event.
        seed: of the plan.
        signing: settings that sign tokens, by their environment names.
        processes: how many share the plan.
        connections: of all processes together.
    """

    scenario: Scenario
    seed: int
    signing: Mapping[str, str]
    processes: int
    connections: int = CONNECTIONS


@dataclass(frozen=True)
class Sent:
    """What the processes have seen.

    Attributes:
        by_process: the results of each process.
    """

    by_process: list[list[Result]]

    @property
    def results(self) -> list[Result]:
        """The results of all processes, ordered by their planned moments."""
        return sorted((one for results in self.by_process for one in results), key=lambda result: result.at_s)


def processes_for(scenario: Scenario) -> int:
    """Return how many processes a scenario's rate needs."""
    return 1 + int((scenario.rate_per_s + scenario.bots_per_s) // RATE_PER_PROCESS)


class Workers:
    """Generator processes, which prepare themselves and wait for the order to send."""

    def __init__(self, job: Job) -> None:
        self._job = job
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for share in range(job.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_generate, args=(job, share, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return [process.pid for process in self._processes if process.pid]

    def wait_until_ready(self) -> None:
        """Wait until each has its plan and its tokens.

        Raises:
            RuntimeError: one has died, or takes too long.
        """
        for pipe in self._pipes:
            if not pipe.poll(_PREPARE_TIMEOUT_S):
                raise RuntimeError(f"a generator process was not ready after {_PREPARE_TIMEOUT_S:.0f} s")
            _receive(pipe)

    def send(self, site: Site, start_s: float, progress: Callable[[float, int], object]) -> Sent:
        """Give the order to send, and wait for the results.

        Args:
            site: where the requests go.
            start_s: the first moment of the plan, by `time.perf_counter`; LEAD_S from now or later.
            progress: called every second with the seconds since the start and the number of results.

        Raises:
            RuntimeError: a process has died, or takes longer than the plan allows.
        """
        for pipe in self._pipes:
            with _noticing_death():
                pipe.send((site, start_s))
        # Every request has a time-out for its connection and one for its response, in each try.
        give_up_s = start_s + self._job.scenario.seconds + (1 + self._job.scenario.tries) * (2 * TIMEOUT_S + 1)
        answered = dict.fromkeys(self._pipes, 0)
        results: dict[Connection, list[Result]] = {}
        reported_s = start_s
        while len(results) < len(self._pipes):
            ready = wait([pipe for pipe in self._pipes if pipe not in results], timeout=1.0)
            for pipe in self._pipes:
                if pipe in ready:
                    match _receive(pipe):
                        case int(number):
                            answered[pipe] = number
                        case list(of_process):
                            results[pipe] = of_process
            now_s = time.perf_counter()
            if now_s >= reported_s + 1.0 or len(results) == len(self._pipes):
                reported_s = now_s
                progress(now_s - start_s, sum(answered.values()))
            if now_s > give_up_s:
                raise RuntimeError("the generator takes longer than its plan allows")
        return Sent([results[pipe] for pipe in self._pipes])

    def end(self) -> None:
        """Stop the processes that still run."""
        for process in self._processes:
            process.terminate()
            process.join(5)


@contextmanager
def started_workers(job: Job) -> Iterator[Workers]:
    """Start the processes of a job; stop them when the block ends."""
    workers = Workers(job)
    try:
        yield workers
    finally:
        workers.end()


@contextmanager
def _noticing_death() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise RuntimeError("a generator process has died") from None


def _receive(pipe: Connection) -> object:
    with _noticing_death():
        return pipe.recv()


def _generate(job: Job, share: int, pipe: Connection) -> None:
    """Run one process: every nth click of the plan, with tokens signed beforehand."""
    clients = open_files.connections(max(1, job.connections // job.processes), others=_SPARE_FILES)
    config = settings.load(dict(job.signing))
    mine = plans.clicks(job.scenario, job.seed)[share :: job.processes]
    signed = {user: tokens.sign(config, user, ttl_s=TOKEN_TTL_S) for user in {click.user for click in mine}}
    pipe.send("ready")
    site, start_s = pipe.recv()
    arrivals = [plans.arrival(click, site, signed[click.user], job.scenario) for click in mine]
    # A garbage collection would be a pause of the generator's own; a run is short enough without.
    gc.collect()
    gc.freeze()
    gc.disable()
    results = open_loop(
        site.port,
        arrivals,
        clients=clients,
        progress=pipe.send,
        start_s=start_s,
        timeout_s=TIMEOUT_S,
        host=site.host,
        again=plans.impatience(job.scenario, job.seed + share),
    )
    pipe.send(results)
