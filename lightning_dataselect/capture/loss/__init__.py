"""A step's loss: its terms, how each is read, and why a step cannot be read."""
