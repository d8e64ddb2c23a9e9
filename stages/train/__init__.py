"""Private parts of train.py."""
