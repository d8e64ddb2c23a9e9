"""Private parts of merge_export.py."""
