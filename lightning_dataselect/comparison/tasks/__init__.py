"""The task that is compared on, made afresh for every run."""
