"""The tree of errors that is drawn at the top of `couponapp/errors.py`."""

from __future__ import annotations

import inspect
import re

from couponapp import errors


def drawn(text: str) -> list[tuple[str, int]]:
    """Names and depths of a drawn tree, from top to bottom."""
    lines = re.findall(r"^ {4}((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+)", text, re.MULTILINE)
    return [(name, len(branches) // 4) for branches, name in lines]


def declared() -> dict[str, int]:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__]
    return {one.__name__: len(one.__mro__) - len(errors.CouponAppError.__mro__) for one in classes}


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    tree = drawn(errors.__doc__ or "")
    assert dict(tree) == declared()
    assert len(tree) == len(declared())
    # Below whom each stands: the last name above it that is one step higher.
    for number, (name, depth) in enumerate(tree[1:], start=1):
        parent = next(above for above, its_depth in reversed(tree[:number]) if its_depth == depth - 1)
        assert getattr(errors, name).__base__.__name__ == parent


def test_every_error_has_a_code_and_a_default_message_of_one_sentence() -> None:
    for name in declared():
        one = getattr(errors, name)
        assert re.fullmatch(r"[A-Z_]+", one.code), name
        assert re.fullmatch(r"[A-Z][^\n]+\.", one.__doc__), name


def test_a_class_that_is_missing_from_the_drawing_or_stands_elsewhere_is_caught() -> None:
    text = errors.__doc__ or ""
    assert dict(drawn(text.replace("    ├── NotFound\n", ""))) != declared()
    assert dict(drawn(text.replace("│   └── Overloaded", "├── Overloaded"))) != declared()
