"""Which method pays on this task? Runs methods x seeds against full data and equal compute."""
