"""The processes that send: so many that none is the bottleneck, started together, watched while they run."""

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

# What one process sends without being late, with room to spare; `generator.late_ms` in the report
# shows whether that holds on the machine at hand.
RATE_PER_PROCESS = 900
# Of all processes together; a web process takes 1,000.
CONNECTIONS = 1_000
TIMEOUT_S = 10.0
# From the order to the first request: for the requests to be put into bytes.
LEAD_S = 2.0
TOKEN_TTL_S = 7_200
_PREPARE_TIMEOUT_S = 120.0
_SPARE_FILES = 64
_DIED = "a generator process has died"


@dataclass(frozen=True)
class Job:
    """What a generator process needs to know.

    Attributes:
        scenario: the event.
        seed: of the plan.
        signing: settings by which tokens are signed, by the environment's names.
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
        by_process: what each brought.
    """

    by_process: list[list[Result]]

    @property
    def results(self) -> list[Result]:
        """Of all processes, in the order of their planned moments."""
        return sorted((one for results in self.by_process for one in results), key=lambda result: result.at_s)


Progress = Callable[[float, int], None]


def processes_for(scenario: Scenario) -> int:
    """How many processes a scenario's rate asks for; a surge asks for more than its average."""
    peak = scenario.rate_per_s + scenario.bots_per_s
    return 1 + int(peak // RATE_PER_PROCESS)


class Workers:
    """Generator processes, prepared and waiting for the order."""

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
        """Of the processes."""
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

    def send(self, site: Site, start_s: float, progress: Progress) -> Sent:
        """Give the order to begin, and wait for the results.

        Args:
            site: where the requests go.
            start_s: the first moment of the plan, by `time.perf_counter`; LEAD_S from now or later.
            progress: told every second: seconds since the start, and how many have been answered.

        Raises:
            RuntimeError: a process has died, or goes on for longer than the plan allows.
        """
        for pipe in self._pipes:
            try:
                pipe.send((site, start_s))
            except OSError:
                raise RuntimeError(_DIED) from None
        # Every request has a time-out for its connection and one for its answer, each try anew.
        give_up_s = start_s + self._job.scenario.seconds + (1 + self._job.scenario.tries) * (2 * TIMEOUT_S + 1)
        open_pipes, answered = list(self._pipes), dict.fromkeys(self._pipes, 0)
        brought: dict[Connection, list[Result]] = {}
        told_s = start_s
        while open_pipes:
            ready = set(wait(open_pipes, timeout=1.0))
            for pipe in [pipe for pipe in open_pipes if pipe in ready]:
                match _receive(pipe):
                    case int(number):
                        answered[pipe] = number
                    case list(results):
                        brought[pipe] = results
                        open_pipes.remove(pipe)
            if (now_s := time.perf_counter()) >= told_s + 1.0 or not open_pipes:
                told_s = now_s
                progress(now_s - start_s, sum(answered.values()))
            if time.perf_counter() > give_up_s:
                raise RuntimeError("the generator goes on for longer than its plan allows")
        return Sent([brought[pipe] for pipe in self._pipes])

    def end(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.terminate()
            process.join(5)


@contextmanager
def fleet(job: Job) -> Iterator[Workers]:
    """Start the processes of a job, and end them afterwards."""
    started = Workers(job)
    try:
        yield started
    finally:
        started.end()


def _receive(pipe: Connection) -> object:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise RuntimeError(_DIED) from None


def _generate(job: Job, share: int, pipe: Connection) -> None:
    """One process: every so-many-th click of the plan, with tokens signed beforehand."""
    clients = max(1, job.connections // job.processes)
    clients = open_files.connections(clients, others=_SPARE_FILES)
    config = settings.load(dict(job.signing))
    mine = plans.clicks(job.scenario, job.seed)[share :: job.processes]
    signed = {user: tokens.sign(config, user, ttl_s=TOKEN_TTL_S) for user in {click.user for click in mine}}
    pipe.send("ready")
    site, start_s = pipe.recv()
    arrivals = [plans.arrival(click, site, signed[click.user], job.scenario) for click in mine]
    # A collection of garbage would be a pause of the generator's own; a run is short enough without.
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
