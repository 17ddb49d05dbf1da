"""The findings: rows, verdicts, and what they mean in words."""
