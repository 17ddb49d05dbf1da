"""The findings as a table, pictures and a report."""
