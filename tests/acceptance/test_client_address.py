"""Behind proxies the client's address cannot be forged (`COUPON_TRUSTED_PROXIES`)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.databases import Databases
from tests.support.forwarded import BEHIND_ONE, BEHIND_TWO, CLIENT, FIRST, FORGED, PEER, Cases
from tests.support.servers import ROOT, Web, end, running_web, service_environ, wait_until

APP = "tests.support.address_app:app"

# Whatever is used somewhere to tell an address, a scheme, a name or a path.
FORGERIES = [
    f"X-Forwarded-For: {FORGED}",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Protocol: ssl",
    "X-Forwarded-Ssl: on",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Prefix: /evil",
    f'Forwarded: for="{FORGED}";proto=https;host=evil.example',
    *(f"{name}: {FORGED}" for name in ("X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Client-IP")),
    f"X_Forwarded_For: {FORGED}",
    "X_Forwarded_Proto: https",
    f"Remote_Addr: {FORGED}",
    "Script_Name: /_address",
    "Path_Info: /metrics",
]


# A real server


@pytest.fixture(scope="module")
def serve(
    databases: Databases, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Web]]:
    """A server with so many trusted proxies; each number is started once."""
    directory = tmp_path_factory.mktemp("address")
    servers: dict[int, Web] = {}
    with ExitStack() as stack:
        url = stack.enter_context(databases.fresh())

        def server(hops: int) -> Web:
            if hops not in servers:
                environ = service_environ(url, redis_server_url, COUPON_TRUSTED_PROXIES=str(hops))
                servers[hops] = stack.enter_context(running_web(directory, environ, processes=1, arguments=[APP]))
            return servers[hops]

        yield server


def seen(connection: socket.socket, lines: Sequence[str]) -> dict[str, Any]:
    """What the service takes a client for that sends these header lines."""
    head = ["GET /_address HTTP/1.1", "Host: localhost", *lines, "Connection: close", "", ""]
    connection.sendall("\r\n".join(head).encode("latin-1"))
    answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


def seen_by(web: Web, lines: Sequence[str]) -> dict[str, Any]:
    with socket.create_connection((PEER, web.port), timeout=30) as connection:
        return seen(connection, lines)


def forwarded_for(values: Iterable[str]) -> list[str]:
    return [f"X-Forwarded-For: {value}" for value in values]


@pytest.mark.parametrize(("hops", "cases"), [(1, BEHIND_ONE), (2, BEHIND_TWO)])
def test_only_what_the_trusted_proxies_have_appended_counts(
    serve: Callable[[int], Web], hops: int, cases: Cases
) -> None:
    found = {what: seen_by(serve(hops), forwarded_for(values))["address"] for what, (values, _) in cases.items()}
    assert found == {what: expected for what, (_, expected) in cases.items()}


def test_without_a_trusted_proxy_nothing_that_a_client_sends_changes_who_it_is(serve: Callable[[int], Web]) -> None:
    plain = {"address": PEER, "scheme": "http", "path": "/_address", "root": ""}
    for line in [*FORGERIES, *forwarded_for(value for values, _ in BEHIND_ONE.values() for value in values)]:
        assert seen_by(serve(0), [line]) == plain, line
    assert seen_by(serve(0), FORGERIES) == plain


@pytest.mark.parametrize("hops", [1, 2])
def test_behind_proxies_no_other_header_changes_who_it_is(serve: Callable[[int], Web], hops: int) -> None:
    appended = [f"X-Forwarded-For: {', '.join([FORGED, CLIENT, FIRST][: hops + 1])}"]
    others = [line for line in FORGERIES if not line.startswith(("X-Forwarded-For", "X-Forwarded-Proto:"))]
    expected = {"address": CLIENT, "scheme": "http", "path": "/_address", "root": ""}
    assert seen_by(serve(hops), [*appended, *others]) == expected


def test_the_scheme_is_the_one_that_the_trusted_proxy_has_appended(serve: Callable[[int], Web]) -> None:
    cases = {"https": "https", "http, https": "https", "https, http": "http", "HTTPS": "https"}
    wrong = dict.fromkeys(["https, ftp", "https,", "javascript", '"https, x', ""], "http")
    for value, expected in (cases | wrong).items():
        assert seen_by(serve(1), [f"X-Forwarded-Proto: {value}"])["scheme"] == expected, value
    assert seen_by(serve(2), ["X-Forwarded-Proto: https, http"])["scheme"] == "https"
    assert seen_by(serve(2), ["X-Forwarded-Proto: https"])["scheme"] == "http"


def test_over_a_unix_socket_gunicorn_believes_nothing_either(tmp_path: Path, environ: dict[str, str]) -> None:
    """It would, by itself: it takes whoever may open the socket for a proxy that cleans up."""
    with TemporaryDirectory(prefix="couponapp-") as directory:  # a socket's path must be short
        path = f"{directory}/web.sock"
        command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{path}", APP]
        environ |= {"WEB_CONCURRENCY": "1", "COUPON_METRICS_DIR": str(tmp_path / "metrics")}
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: Path(path).exists(), timeout_s=30, what="the socket is there")
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(30)
                connection.connect(path)
                found = seen(connection, FORGERIES)
        finally:
            end(process)
    assert found == {"address": "", "scheme": "http", "path": "/_address", "root": ""}
