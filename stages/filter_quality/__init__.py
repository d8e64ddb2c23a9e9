"""Private parts of filter_quality.py."""
