"""The studies of what the callbacks cost and save, one a module: `python -m benchmarks.STUDY`."""
