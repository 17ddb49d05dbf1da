"""The scores that a sample can be ranked by, one a file."""
