"""Figures, files and pages made of what a run has left behind; needs the `report` extra."""
