"""Compare methods on a user's own task: every method and seed, against full data at equal compute."""
