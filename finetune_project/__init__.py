"""The command line of a system that came before, `python -m finetune_project`, on top of the scripts of today."""
