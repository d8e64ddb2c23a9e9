"""Private parts of split_data.py."""
