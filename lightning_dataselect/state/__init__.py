"""Per-sample state and where a fit stands; imports no Lightning."""
