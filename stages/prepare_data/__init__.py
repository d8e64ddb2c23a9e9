"""Private parts of prepare_data.py."""
