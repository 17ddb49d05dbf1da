"""The calls of a step, as they are made: loss functions, means and sums."""
