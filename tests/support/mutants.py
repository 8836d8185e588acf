"""Wrong variants of a module of ours, made by changing its source: a good test tells them apart."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from types import ModuleType


def mutated(module: ModuleType, changes: Mapping[str, str]) -> ModuleType:
    """A copy of a module in which some pieces of its source are replaced.

    Args:
        module: the right one; it stays as it is.
        changes: what is replaced by what. Each piece must occur exactly once, so that a change
            of the module's source is noticed here.
    """
    source = inspect.getsource(module)
    for right, wrong in changes.items():
        assert source.count(right) == 1, f"{source.count(right)} times in {module.__name__}: {right!r}"
        source = source.replace(right, wrong)
    variant = ModuleType(f"{module.__name__}_mutant_{abs(hash(source))}")
    sys.modules[variant.__name__] = variant  # dataclasses look themselves up there
    try:
        exec(compile(source, f"<a variant of {module.__name__}>", "exec"), variant.__dict__)
    finally:
        del sys.modules[variant.__name__]
    return variant
