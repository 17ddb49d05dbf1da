"""Lightning callbacks: the base of every selection method, and of those that choose within a batch."""
