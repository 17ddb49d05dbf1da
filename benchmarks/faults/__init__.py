"""Faults that a fit must come through, or end in with an error: ``python -m benchmarks.faults``."""
