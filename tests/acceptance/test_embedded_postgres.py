"""The PostgreSQL of `make run`, after it was killed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.support.servers import own_postgres, wait_until


def test_a_killed_server_starts_again_although_one_of_its_sessions_still_runs(tmp_path: Path) -> None:
    with own_postgres(tmp_path) as server, psycopg.connect(server.url) as session, ThreadPoolExecutor(1) as executor:
        # Frozen, so that it cannot notice that its server is gone: it keeps the shared memory.
        os.kill(session.info.backend_pid, signal.SIGSTOP)
        try:
            assert server.child is not None
            server.child.process.kill()
            server.child.process.wait(10)
            log = tmp_path / "postgres" / "server.log"
            starting = executor.submit(server.start, tmp_path)
            wait_until(lambda: b"pre-existing shared memory" in log.read_bytes(), timeout_s=10, what="it is refused")
            assert not starting.done()
        finally:
            os.kill(session.info.backend_pid, signal.SIGCONT)
        starting.result(30)
        with psycopg.connect(server.url) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
