"""The command `lightning-dataselect`."""
