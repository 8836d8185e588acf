"""Checks of the Markdown documents. Each returns what is wrong, one sentence each; an empty list is fine."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.M)
_STATUS = re.compile(
    r"\*\*Status:\*\* (?P<status>accepted|superseded by \[\d{4}\]\([\w.-]+\.md\))"
    r" · \*\*Date:\*\* (?P<date>\d{4}-\d{2}-\d{2})(, .+)?"
)
_DECISION = re.compile(r"(\d{4})-[a-z0-9-]+\.md")
# A diagram has words of its own in each language; all other blocks are to be typed or read as they are.
_DIAGRAMS = ("text", "mermaid")


def markdown_files(root: Path) -> list[Path]:
    """Return all Markdown files of the project, without what `make` and tools have put there."""
    left_out = {"var", "node_modules"}
    folders = [one for one in root.iterdir() if one.is_dir() and one.name not in left_out and one.name[0] != "."]
    return sorted([*root.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


def links(text: str) -> list[str]:
    """Return the targets of all links and pictures, in order."""
    return _LINK.findall(_FENCE.sub("", text))


def headings(text: str) -> list[tuple[int, str]]:
    """Return level and text of each heading, in order."""
    return [(len(level), title) for level, title in _HEADING.findall(_FENCE.sub("", text))]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for _, title in headings(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken_links(path: Path, text: str, root: Path) -> Iterator[str]:
    """Yield each relative link that leads to no file, to no heading, or out of the project.

    Args:
        path: of the document, below `root`.
        text: its content.
        root: of the project.
    """
    for target in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.is_relative_to(root.resolve()) or not file.exists():
            yield f"{path.relative_to(root)}: {target} leads to no file"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8") if name else text):
            yield f"{path.relative_to(root)}: {target} leads to no heading"


def import_layers(pyproject: str) -> list[list[str]]:
    """Return the layers of the import contract, top first; the packages of one layer in alphabetical order."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    layers: Sequence[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [_packages(layer) for layer in layers]


def documented_layers(text: str) -> list[list[str]]:
    """Return the layers in the code block below the mark `<!-- layers -->`, as `import_layers` does."""
    block = _FENCE.search(text, text.index("<!-- layers -->"))
    return [_packages(line) for line in block["code"].splitlines()] if block else []


def _packages(layer: str) -> list[str]:
    return sorted(name.strip(" ()") for name in re.split(r"[|:]", layer))


def mapped_packages(text: str) -> list[str]:
    """Return the packages of the package map: the first cells of the table whose head is `| package |`."""
    table = text.partition("| package |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell))


def wrong_decisions(pages: Mapping[str, str], index: str) -> Iterator[str]:
    """Yield what is wrong with the decisions.

    Args:
        pages: the text of each decision by the name of its file.
        index: the page that lists them.
    """
    numbers = sorted(int(name[:4]) for name in pages)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the numbers are not 1 to {len(numbers)}: {numbers}"
    for name, text in sorted(pages.items()):
        title, blank, status, *_ = [*text.splitlines(), "", "", ""]
        if not _DECISION.fullmatch(name) or not title.startswith(f"# {name[:4]} "):
            yield f"{name}: does not begin with its number and title"
        elif blank or not (found := _STATUS.fullmatch(status)):
            yield f"{name}: the third line is not «**Status:** accepted · **Date:** YYYY-MM-DD»"
        else:
            row = f"| [{name[:4]}]({name}) | {title[7:]} | {found['status']} | {found['date']} |"
            if row not in index.splitlines():
                yield f"the index lacks this row: {row}"
    for listed in re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", index, re.M):
        if listed not in pages:
            yield f"the index lists {listed}, which is no decision"


def differences(english: str, korean: str) -> Iterator[str]:
    """Yield where a Korean page is not the counterpart of the English one: headings, commands, links."""
    if [level for level, _ in headings(english)] != [level for level, _ in headings(korean)]:
        yield "the headings differ in number or level"
    for one, other in _differing(commands(english), commands(korean)):
        yield f"the code differs: {one!r}, {other!r}"
    for one, other in _differing(_counterparts(english), _counterparts(korean)):
        yield f"the links differ: {one}, {other}"


def commands(text: str) -> list[str]:
    """Return the code blocks without their comments, and without diagrams."""
    blocks = [match for match in _FENCE.finditer(text) if match["language"] not in _DIAGRAMS]
    return [re.sub(r"\s+# .*$", "", match["code"], flags=re.M) for match in blocks]


def _counterparts(text: str) -> list[str]:
    return [target.replace(".ko.md", ".md") for target in links(text)]


def _differing(ones: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    length = max(len(ones), len(others))
    for one, other in zip(_padded(ones, length), _padded(others, length), strict=True):
        if one != other:
            yield one, other


def _padded(texts: Sequence[str], length: int) -> list[str]:
    return [*texts, *["(none)"] * (length - len(texts))]
