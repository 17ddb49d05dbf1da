"""One training step: run it, isolate it, and read what its samples lost."""
