"""A probed loss, taken apart by its autograd graph."""
