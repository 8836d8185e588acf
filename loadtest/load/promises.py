"""Checks a run against the promises of its scenario. Each check says what was promised and what was seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from loadtest.driver.generator import GAVE_UP, NOT_SENT, Result
from loadtest.driver.usage import Sample
from loadtest.load.answered import ISSUE, Answered
from loadtest.load.figures import ATTEMPTS, NO_ANSWER, REFUSALS, goodput_per_s, percentiles_ms
from loadtest.load.history import check
from loadtest.load.ledger import Ledger
from loadtest.load.plans import Step, steps
from loadtest.load.scenarios import BOT, STEPS, Scenario

_MB = 1_000_000
# Growth below this is the allocator's and not the service's.
_NOISE_BYTES = 10 * _MB


@dataclass(frozen=True)
class Check:
    """One promise, what was seen, and whether it was kept."""

    name: str
    promised: str
    seen: str
    kept: bool


def judge(
    scenario: Scenario, results: Sequence[Result], ledger: Ledger | None, samples: Sequence[Sample]
) -> list[Check]:
    """Check every promise of the scenario.

    Args:
        scenario: with its promises.
        results: of all requests.
        ledger: what the database holds; None where it cannot be read.
        samples: of processors and memory; empty where the processes cannot be seen.
    """
    attempts = [result for result in results if result.kind in ATTEMPTS]
    checks = [
        _errors(scenario, results),
        *_times(scenario, attempts),
        *_goodput(scenario, results),
        *_memory(scenario, samples),
        *_limits(scenario, results),
        *_codes(scenario, attempts),
    ]
    if ledger is not None:
        checks += [*_recorded(scenario, attempts, ledger), _explained(attempts, ledger)]
    return checks


def _errors(scenario: Scenario, results: Sequence[Result]) -> Check:
    allowed = set() if scenario.promises.no_5xx else {"SERVICE_UNAVAILABLE"}
    allowed |= {GAVE_UP} if scenario.patience_s is not None else set()
    errors = Counter(r.code for r in results if (r.status >= 500 or r.code in NO_ANSWER) and r.code not in allowed)
    promised = "no 5xx, every request answered" if scenario.promises.no_5xx else "no 5xx but a short 503"
    seen = ", ".join(f"{number} {code}" for code, number in errors.most_common())
    return Check("errors", promised, seen or "none", not errors)


def _times(scenario: Scenario, attempts: Sequence[Result]) -> Iterator[Check]:
    promises = scenario.promises
    ordinary = [result for result in attempts if result.kind != BOT]
    refused = [result for result in attempts if result.code in REFUSALS]
    for name, bound_ms, those in (
        ("attempts in time", promises.issue_p99_ms, ordinary),
        ("refusals in time", promises.refused_p99_ms, refused),
    ):
        if bound_ms is not None:
            p99_ms = percentiles_ms([result.latency_s for result in those])[99.0]
            seen = f"p99 {p99_ms:.0f} ms of {len(those)}"
            yield Check(name, f"p99 at most {bound_ms:.0f} ms", seen, p99_ms <= bound_ms)


def goodput_steps(scenario: Scenario) -> list[Step]:
    """Return the parts of a run whose goodput is compared: its steps, or thirds where it has none."""
    if scenario.shape == STEPS:
        return steps(scenario)
    third_s = scenario.seconds / 3
    return [Step(part * third_s, (part + 1) * third_s, scenario.rate_per_s) for part in range(3)]


def _goodput(scenario: Scenario, results: Sequence[Result]) -> Iterator[Check]:
    if (share := scenario.promises.goodput_of_peak) is None:
        return
    rates = [goodput_per_s(results, step) for step in goodput_steps(scenario)]
    seen = f"{rates[-1]:.0f}/s at the end, {max(rates):.0f}/s at the peak"
    promised = f"at least {share:g} of the peak to the end"
    yield Check("goodput", promised, seen, rates[-1] > 0 and rates[-1] >= share * max(rates))


def _memory(scenario: Scenario, samples: Sequence[Sample]) -> Iterator[Check]:
    web = [sample.roles["web"].rss_bytes for sample in samples if "web" in sample.roles]
    if (growth := scenario.promises.memory_growth) is None or not samples:
        return
    third = max(1, len(web) // 3)
    before, after = (mean(part) if part else 0.0 for part in (web[third : 2 * third], web[-third:]))
    seen = f"{before / _MB:.0f} MB in the middle of the run, {after / _MB:.0f} MB at its end"
    kept = bool(before) and after - before <= max(_NOISE_BYTES, growth * before)
    yield Check("memory is flat", f"web processes grow by at most {100 * growth:.0f} %", seen, kept)


def _limits(scenario: Scenario, results: Sequence[Result]) -> Iterator[Check]:
    promises = scenario.promises
    if promises.past_limits is not None:
        passed = Counter(result.who for result in results if result.kind == BOT and result.status in (201, 409))
        most = max(passed.values(), default=0)
        promised = f"at most {promises.past_limits} attempts of each pass"
        yield Check("bots are held back", promised, f"{most} of one did", most <= promises.past_limits)
    if not (promises.spares_others or promises.opens_on_time):
        return
    limited = sum(1 for result in results if result.status == 429 and result.kind != BOT)
    name = "others are spared" if promises.spares_others else "early clicks cost nothing"
    yield Check(name, "no ordinary user gets a 429", f"{limited} did", not limited)


def _codes(scenario: Scenario, attempts: Sequence[Result]) -> Iterator[Check]:
    """Check the codes that users were shown, whatever the database holds."""
    shown: dict[str, set[str]] = defaultdict(set)
    for result in attempts:
        if result.issuance:
            shown[result.who].add(result.issuance)
    several = sum(1 for codes in shown.values() if len(codes) > 1)
    yield Check("one per user", "no user is shown two codes", f"{several} were", not several)
    codes = [code for of_user in shown.values() for code in of_user]
    number = len(set(codes))
    shared = len(codes) - number
    yield Check("one user per code", "no code is shown to two users", f"{shared} were", not shared)
    yield Check("never too many", f"at most {scenario.stock} codes", f"{number}", number <= scenario.stock)


def _recorded(scenario: Scenario, attempts: Sequence[Result], ledger: Ledger) -> Iterator[Check]:
    promises = scenario.promises
    yield Check("verify", "clean", "; ".join(ledger.violations) or "clean", not ledger.violations)
    shown = {(result.who, result.issuance) for result in attempts if result.issuance}
    lost = sum(1 for who, code in shown if ledger.owners.get(who) != code)
    yield Check("what was shown is recorded", "every code that a user was shown", f"{lost} are missing", not lost)
    sold_out = sum(1 for result in attempts if result.code == "SOLD_OUT")
    seen = f"{ledger.issued} of {ledger.total} issued, {sold_out} got SOLD_OUT"
    least = min(ledger.total, len({result.who for result in attempts})) if promises.sells_out else 0
    kept = least <= ledger.issued <= ledger.total and (ledger.issued == ledger.total or not sold_out)
    promised = f"exactly {least} issued" if least else f"at most {ledger.total} issued, SOLD_OUT only when all are"
    yield Check("exactly the stock", promised, seen, kept)
    if promises.opens_on_time:
        yield Check("the opening", "nothing issued before it", f"{ledger.early} were", not ledger.early)
    if promises.notified_s is not None:
        seen = f"{ledger.waiting} wait, the slowest took {ledger.slowest_notification_s:.1f} s"
        kept = not ledger.waiting and ledger.slowest_notification_s <= promises.notified_s
        yield Check("notified", f"every holder within {promises.notified_s:.0f} s", seen, kept)


def _explained(attempts: Sequence[Result], ledger: Ledger) -> Check:
    """Check that some order of events explains every attempt; see `loadtest.load.history`."""
    answers = [
        Answered(ISSUE, r.who, 0, r.sent_s, max(r.sent_s, r.answered_s), r.code, r.issuance or None, r.key or None)
        for r in attempts
        # The opening is on the database's clock: `ledger.early` checks it. What was not sent changed nothing.
        if r.code not in ("NOT_OPEN", NOT_SENT)
    ]
    found = check(answers, ledger.owners, ledger.total)
    seen = "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return Check("history", "some order of events explains every response", seen or "one does", not found)
