"""Figures, files and pages made of what a run has left behind; needs the `report` extra."""

from lightning_dataselect.utils.extras import require_report_extra

# Every module of this room imports one or both.
require_report_extra("plot() or export()", "matplotlib", "pandas")
