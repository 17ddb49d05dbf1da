"""Runs of one method and seed: carried out, measured and kept."""
