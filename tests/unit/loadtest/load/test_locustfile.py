"""The file for Locust, which is no dependency: it is read, not run."""

from __future__ import annotations

import ast

from couponapp.web.api.openapi import document
from tests.support.servers import ROOT


def test_the_locust_file_compiles_and_uses_paths_of_the_api() -> None:
    source = (ROOT / "loadtest/load/locustfile.py").read_text()
    compile(source, "locustfile.py", "exec")
    named = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/api/")
    }
    assert len(named) == 4
    assert named <= set(document()["paths"])
