"""The processes that send: enough of them that none is the bottleneck, and started together."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import suppress
from multiprocessing.sharedctypes import Synchronized

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.server import open_files
from loadtest.driver.generator import Result, open_loop
from loadtest.load import plans
from loadtest.load.options import Options
from loadtest.load.plans import Site

TIMEOUT_S = 10.0
# From the order to the first request: for the requests to be put into bytes.
LEAD_S = 2.0
TOKEN_TTL_S = 7_200
_PREPARE_TIMEOUT_S = 120.0


class Workers:
    """Generator processes, which prepare themselves and wait for the order to send.

    Attributes:
        pids: of the processes; known once they are ready.
    """

    def __init__(self, options: Options, secret: str) -> None:
        """Start the processes.

        Args:
            options: of the run.
            secret: signs the service's tokens.
        """
        self._scenario = options.scenario
        self.pids: list[int] = []
        context = multiprocessing.get_context("spawn")
        self._answered = [context.Value("L", 0) for _ in range(options.generators)]
        # A pool of one for each: what a process has prepared is what it will send.
        self._pools = [
            ProcessPoolExecutor(1, context, _prepare, (options, secret, share, answered))
            for share, answered in enumerate(self._answered)
        ]

    def wait_until_ready(self) -> None:
        """Wait until each has its plan and its tokens.

        Raises:
            RuntimeError: one has died, or takes too long.
        """
        futures = [pool.submit(os.getpid) for pool in self._pools]
        if wait(futures, _PREPARE_TIMEOUT_S).not_done:
            raise RuntimeError(f"a generator process was not ready after {_PREPARE_TIMEOUT_S:.0f} s")
        self.pids = [future.result() for future in futures]

    def send(self, site: Site, start_s: float, progress: Callable[[float, int], object]) -> list[list[Result]]:
        """Give the order to send, and wait for the results of each process.

        Args:
            site: where the requests go.
            start_s: the first moment of the plan, by `time.perf_counter`; LEAD_S from now or later.
            progress: called every second with the seconds since the start and the number of results.

        Raises:
            RuntimeError: a process has died, or takes longer than the plan allows.
        """
        # Every request has a time-out for its connection and one for its response, in each try.
        give_up_s = start_s + self._scenario.seconds + (1 + self._scenario.tries) * (2 * TIMEOUT_S + 1)
        futures = [pool.submit(_send_prepared, site, start_s) for pool in self._pools]
        pending = set(futures)
        while pending:
            done, pending = wait(futures, 1.0, FIRST_EXCEPTION)
            progress(time.perf_counter() - start_s, sum(number.value for number in self._answered))
            for future in done:
                future.result()  # raises where the process has died
            if time.perf_counter() > give_up_s:
                raise RuntimeError("the generator takes longer than its plan allows")
        return [future.result() for future in futures]

    def close(self) -> None:
        """Stop the processes that still run."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


_send: Callable[[Site, float], list[Result]]


def _prepare(options: Options, secret: str, share: int, answered: Synchronized[int]) -> None:
    """Prepare this process: it will send every nth click of the plan, with tokens signed now."""
    global _send  # noqa: PLW0603  # one for each process; its pool calls functions, and keeps no state
    clients = open_files.connections(max(1, options.connections // options.generators), others=64)
    config = settings.load({"COUPON_JWT_SECRET": secret})
    clicks = plans.clicks(options.scenario, options.seed)[share :: options.generators]
    signed = {user: tokens.sign(config, user, ttl_s=TOKEN_TTL_S) for user in {click.user for click in clicks}}

    def send(site: Site, start_s: float) -> list[Result]:
        arrivals = [plans.arrival(click, site, signed[click.user], options.scenario) for click in clicks]
        # A garbage collection would be a pause of the generator's own; a run is short enough without.
        gc.collect()
        gc.freeze()
        gc.disable()
        return open_loop(
            site.port,
            arrivals,
            clients=clients,
            progress=lambda number: setattr(answered, "value", number),
            start_s=start_s,
            timeout_s=TIMEOUT_S,
            host=site.host,
            again=plans.impatience(options.scenario, options.seed + share),
        )

    _send = send


def _send_prepared(site: Site, start_s: float) -> list[Result]:
    return _send(site, start_s)
