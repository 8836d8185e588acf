"""The documents: links, layers, figures, the index of decisions, and the same content in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from couponapp import services
from couponapp.config import settings
from couponapp.guards import rate_limits
from couponapp.issuing import catalogue, sold_out
from couponapp.storage.pool import Timeouts
from couponapp.web import inputs
from couponapp.web.responses import RESPONSES
from tests.support import documents
from tests.support.servers import ROOT

DECISIONS = ROOT / "docs" / "decisions"
ARCHITECTURE = "docs/architecture.md"
WITH_LAYERS = ("CONTRIBUTING.md", ARCHITECTURE)
README_LINES = 150
FILES = documents.markdown_files(ROOT)
KOREAN = [path for path in FILES if path.name.endswith(".ko.md")]
SETTINGS = {str(spec.metadata["env"]): str(spec.metadata["default"]) for spec in settings.specs()}
AT_DEFAULT = Timeouts.within(int(SETTINGS["COUPON_DEADLINE_MS"]))
# What the diagram of the issue path says of each, and the code's constant.
CONSTANTS = {
    "head, body, taking the answer": int(SETTINGS["COUPON_CLIENT_TIMEOUT_S"]),
    "size of head, of body": inputs.MAX_BODY_BYTES // 1024,
    "catalogue": int(catalogue.MAX_AGE_S),
    "sold-out list": int(1000 * sold_out.WAIT_S),
    "limiter's time-out": int(1000 * rate_limits.REDIS_TIMEOUT_S),
    "batch": services.MAX_BATCH_SIZE,
    "starts from the queue with": int(services.MIN_REMAINING * int(SETTINGS["COUPON_DEADLINE_MS"])),
    "wait for a connection": int(1000 * AT_DEFAULT.wait_s),
    "new connection": AT_DEFAULT.connect_s,
    "lock_timeout": AT_DEFAULT.lock_ms,
    "statement_timeout": AT_DEFAULT.statement_ms,
    "idle in transaction": AT_DEFAULT.idle_ms // 1000,
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def diagram(text: str) -> list[str]:
    """The lines of the diagram of the issue path."""
    return text.partition("```text\n")[2].partition("```")[0].splitlines()


def numbers(line: str) -> list[str]:
    return re.findall(r"\d+", line.replace(",", ""))


def wrong_figures(text: str) -> list[str]:
    """What the diagram says otherwise than the settings' defaults and the code."""
    wrong = []
    for line in diagram(text):
        setting = re.search(r" {3,}([A-Z][A-Z_]+)$", line.partition(", _")[0])
        default = SETTINGS.get(setting[1], "?") if setting else None
        if default is not None and (default or "none").partition("/")[0] not in [*numbers(line), *line.split()]:
            wrong.append(f"{line.strip()}: the default is {default or 'none'}")
    for label, constant in CONSTANTS.items():
        (line,) = [one for one in diagram(text) if re.match(rf"[ │├─]+{re.escape(label)} {{3,}}", one + "   ")]
        if str(constant) not in numbers(line):
            wrong.append(f"{line.strip()}: the code says {constant}")
    return wrong


def unknown_settings(text: str) -> set[str]:
    named = set(re.findall(r"\bCOUPON_[A-Z_]+[A-Z]\b", text)) - set(RESPONSES)
    of_service = {name.removesuffix("_FILE") for name in named if not name.startswith("COUPON_TEST_")}
    return of_service - set(SETTINGS)


def test_the_readme_stays_an_overview() -> None:
    for name in ("README.md", "README.ko.md"):
        assert len(read(name).splitlines()) <= README_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    assert list(documents.broken_links(path, path.read_text(encoding="utf-8"), ROOT)) == []


@pytest.mark.parametrize(
    "target",
    ["docs/nothing.md", "docs/settings.md#nothing", "#nothing", "../outside.md", "docs/architecture.md#glossar"],
)
def test_a_broken_link_is_found(target: str) -> None:
    assert list(documents.broken_links(ROOT / "README.md", f"# Title\n\n[text]({target})", ROOT))


def test_a_link_in_a_code_block_is_none() -> None:
    assert documents.links("```\n[text](nothing.md)\n```\n") == []


def test_anchors_are_those_of_github() -> None:
    text = "# What `make run` sets\n## A user's «coupon», 1st\n## 쿠폰 발급\n## Twice\n## Twice\n"
    assert documents.anchors(text) == {"what-make-run-sets", "a-users-coupon-1st", "쿠폰-발급", "twice", "twice-1"}


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_the_layers_are_those_of_the_import_contract(name: str) -> None:
    assert documents.documented_layers(read(name)) == documents.import_layers(read("pyproject.toml"))


def test_a_layer_that_is_missing_or_elsewhere_is_found() -> None:
    contract = documents.import_layers(read("pyproject.toml"))
    lines = [" | ".join(layer) for layer in contract]
    for wrong in (lines[1:], lines[::-1], [*lines, "utils"]):
        text = "<!-- layers -->\n```text\n" + "\n".join(wrong) + "\n```\n"
        assert documents.documented_layers(text) != contract


def test_the_package_map_has_every_package_once() -> None:
    packages = sorted(name for layer in documents.import_layers(read("pyproject.toml")) for name in layer)
    assert documents.mapped_packages(read(ARCHITECTURE)) == packages
    assert documents.mapped_packages(read(ARCHITECTURE).replace("| `guards` |", "| `bulkheads` |")) != packages


def decision_pages() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in DECISIONS.glob("*.md") if path.name != "README.md"}


def test_every_decision_has_a_number_a_status_and_a_date_and_is_in_the_index() -> None:
    assert list(documents.wrong_decisions(decision_pages(), read("docs/decisions/README.md"))) == []


def test_a_decision_without_one_of_them_is_found() -> None:
    pages, index = decision_pages(), read("docs/decisions/README.md")
    name = min(pages)
    status = "**Status:** accepted · **Date:** "
    wrong: list[tuple[dict[str, str], str]] = [
        ({one: text for one, text in pages.items() if one != name}, index),
        ({**pages, "0999-later.md": f"# 0999 Later\n\n{status}2026-11-27\n"}, index),
        ({**pages, name: pages[name].replace(status, "")}, index),
        ({**pages, name: pages[name].replace(f"# {name[:4]}", "#")}, index),
        (pages, index.replace("accepted | 2026", "accepted | 2025", 1)),
        (pages, f"{index}| [0999](0999-later.md) | Later | accepted | 2026-11-27 |\n"),
    ]
    assert all(list(documents.wrong_decisions(*one)) for one in wrong)


def test_every_document_is_in_the_index() -> None:
    listed = {(ROOT / "docs" / target).resolve() for target in documents.links(read("docs/README.md"))}
    assert {path.resolve() for path in (ROOT / "docs").glob("*.md")} - listed == {ROOT / "docs" / "README.md"}


@pytest.mark.parametrize("path", KOREAN, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_korean_page_has_the_headings_the_commands_and_the_links_of_the_english_one(path: Path) -> None:
    english = path.with_name(path.name.replace(".ko.md", ".md")).read_text(encoding="utf-8")
    assert list(documents.differences(english, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("old", "new"), [("\n## 문서", "\n### 문서"), ("make run ", "make runs "), ("api.ko.md", "apo.ko.md")]
)
def test_a_korean_page_that_differs_is_found(old: str, new: str) -> None:
    assert list(documents.differences(read("README.md"), read("README.ko.md").replace(old, new)))


def test_the_diagram_of_the_issue_path_has_the_figures_of_the_code() -> None:
    assert wrong_figures(read(ARCHITECTURE)) == []


@pytest.mark.parametrize(
    ("old", "new"), [("500 requests", "600 requests"), ("700 ms", "750 ms"), ("50 users", "60 users")]
)
def test_a_wrong_figure_is_found(old: str, new: str) -> None:
    assert len(wrong_figures(read(ARCHITECTURE).replace(old, new))) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_a_document_names_exists(path: Path) -> None:
    if path.name != "CHANGELOG.md":  # it may name settings that have gone
        assert unknown_settings(path.read_text(encoding="utf-8")) == set()


def test_a_setting_that_does_not_exist_is_found() -> None:
    assert unknown_settings("`COUPON_POOL_ISSUES` and `COUPON_POOL_ISSUE`") == {"COUPON_POOL_ISSUES"}
