"""Private parts of prepare_data_with_llm.py: reading programs, writing requests, asking providers, keeping answers."""
