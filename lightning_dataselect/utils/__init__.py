"""Checks of arguments and the package's errors."""
