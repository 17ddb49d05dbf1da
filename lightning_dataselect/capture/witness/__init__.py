"""The witness: what single samples lose, held against what was read."""
