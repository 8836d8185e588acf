"""Takes turns: within each round every variant once, in random order, for a short time.

Other work of the machine then affects all variants alike, and ratios are computed round by round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import Pool

from loadtest.bench import servers
from loadtest.bench.servers import Memory, Web
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import request_bytes
from loadtest.driver.usage import stolen_percent

CLIENTS = 32
WARM_UP_S = 0.5
# For the first turn: more users per second than any variant was seen to serve on two cores. Later
# turns have as many as the variant can use, with room to spare, because signing tokens takes time.
FIRST_USERS_PER_S = 4_000
ROOM = 1.6
LEAST_USERS = 200
# A round in which the host took more of the processors than this, in percent, is repeated: it slows
# variants down that wait for several processes more than others.
STOLEN_PERCENT = 5.0

Sign = Callable[[str], str]


@dataclass(frozen=True)
class Variant:
    """One of the implementations or sizes that are compared.

    Attributes:
        name: in tables and results.
        web: its web server.
        path: returns the path of the requests; its argument is the number of users, who all must get a piece.
        status: of every response.
        method: `GET` or `POST`.
        clients: number of connections.
        users: who send requests again and again; when empty, each request has a new user.
        settles_s: how long after a turn its servers may still work for it, in seconds.
    """

    name: str
    web: Web
    path: Callable[[int], str]
    status: int
    method: str = "POST"
    clients: int = CLIENTS
    users: tuple[str, ...] = ()
    settles_s: float = 0.0


@dataclass(frozen=True)
class Group:
    """Variants that are compared with each other.

    Attributes:
        part: of the benchmark: `core`, `guards`, `growth`.
        name: in tables and results.
        variants: they take turns.
        ratios: pairs of names; the ratio is the first as a share of the second.
    """

    part: str
    name: str
    variants: Sequence[Variant]
    ratios: Sequence[tuple[str, str]]


@dataclass
class Seen:
    """The figures of one variant, one per round.

    Attributes:
        rates: responses per second.
        cpu_ms: computing time of its servers per response, by role, in milliseconds. Other work on the
            machine disturbs it less than the rates.
        stolen: what the host took of the processors, in percent.
        memory: what its servers held after the last round, by role.
    """

    rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {role: [] for role in servers.ROLES})
    stolen: list[float] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)

    def add(self, rate: float, cpu_ms: dict[str, float], stolen: float) -> None:
        """Add one round; figures as in the attributes."""
        self.rates.append(rate)
        self.stolen.append(stolen)
        for role, of_role in cpu_ms.items():
            self.cpu_ms[role].append(of_role)


def take_turns(
    group: Group,
    sender: Pool,
    *,
    sign: Sign,
    rounds: int,
    seconds: float,
    progress: Callable[[str], object] = str,
    stolen: Callable[[], float] = stolen_percent,
) -> dict[str, Seen]:
    """Return the figures of each variant of a group.

    Args:
        group: the group.
        sender: process that sends.
        sign: returns a token of the service for a user.
        rounds: how many count. One before them warms up, and as many again may be repeated because the
            host took the processors.
        seconds: length of each turn.
        progress: called with a line to print after each round.
        stolen: returns what the host has taken since the last call, in percent.

    Raises:
        RuntimeError: a variant gives other responses than it should, so its figures mean nothing.
    """
    seen = {variant.name: Seen() for variant in group.variants}
    chance = random.Random(group.name)
    number, counted, spare = 0, 0, rounds
    while counted < rounds:
        stolen()
        shown = [
            (seen[variant.name], _shown(group, variant, number, seen[variant.name], sender, sign, seconds))
            for variant in chance.sample(group.variants, len(group.variants))
        ]
        taken = stolen()
        number += 1
        if number == 1:
            progress(f"{group.name}: warm-up")
        elif taken > STOLEN_PERCENT and spare:
            spare -= 1
            progress(f"{group.part}, {group.name}: once more, because the host took {taken:.0f} % of the processors")
        else:
            counted += 1
            for of_variant, (rate, cpu_ms) in shown:
                of_variant.add(rate, cpu_ms, taken)
            progress(f"{group.part}, {group.name}: round {counted} of {rounds}")
    for variant in group.variants:
        seen[variant.name].memory = servers.memory(variant.web.processes)
    return seen


def _shown(
    group: Group, variant: Variant, number: int, seen: Seen, sender: Pool, sign: Sign, seconds: float
) -> tuple[float, dict[str, float]]:
    """Run one turn; return responses per second, and computing time per response by role, in milliseconds."""
    length_s = seconds if number else min(seconds, WARM_UP_S)
    users_per_s = ROOM * max(seen.rates) if seen.rates else FIRST_USERS_PER_S
    count = max(LEAST_USERS, int(users_per_s * length_s))
    # New users on a new coupon each time: no response is ALREADY_ISSUED, and no limit is reached.
    users = variant.users or tuple(f"{group.name}-{variant.name}-{number}-{user}" for user in range(count))
    path = variant.path(len(users))
    requests = [request_bytes(variant.method, path, sign(user)) for user in users]
    before_s = servers.cpu_s(variant.web.processes)
    options = {"clients": variant.clients, "seconds": length_s, "again": bool(variant.users)}
    rate, sent_s, statuses = sender.apply(closed_loop, (variant.web.port, requests), options)
    time.sleep(variant.settles_s)
    used_s = {role: now_s - before_s[role] for role, now_s in servers.cpu_s(variant.web.processes).items()}
    if statuses != {variant.status}:
        raise RuntimeError(
            f"{group.name}, {variant.name}: responses were {sorted(statuses)}, not {variant.status} only"
        )
    return rate, {role: 1000 * role_s / (rate * sent_s) for role, role_s in used_s.items()}
