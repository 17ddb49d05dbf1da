"""The authors' own code beside ours, fed with the same numbers; see `__main__`."""
