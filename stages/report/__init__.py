"""Private parts of report.py."""
