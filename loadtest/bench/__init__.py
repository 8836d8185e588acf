"""The benchmark: variants take turns in one run, and what is told are their ratios (docs/performance.md)."""
