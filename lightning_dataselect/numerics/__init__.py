"""Pure functions on tensors: sampling, clustering, projection, seeds; imports no Lightning."""
