"""Samplers, loaders and batches: which samples a batch holds, in which order, and how to cut it."""
