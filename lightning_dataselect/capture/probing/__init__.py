"""A step under watch: every torch call, and what it says of rows, numbers and samples."""
