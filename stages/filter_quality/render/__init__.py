"""The render gate: what the programs of records do when they are run, each in a sandbox of its own."""
