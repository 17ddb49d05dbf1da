"""What the callbacks cost and save: one module a study, `python -m benchmarks.STUDY`."""
