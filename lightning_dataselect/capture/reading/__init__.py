"""The losses and outputs of one step, read as its specification says."""
