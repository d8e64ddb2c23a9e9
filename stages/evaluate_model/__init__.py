"""Private parts of evaluate_model.py."""
