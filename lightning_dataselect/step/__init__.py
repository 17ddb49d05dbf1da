"""One training step: run it, isolate it, and read the losses of its samples."""
