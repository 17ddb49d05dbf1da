"""The runs that a comparison is made of: which, how many, and in what order."""
