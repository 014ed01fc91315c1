"""A file a command: its options, its steps, and what it writes; imported only when it is chosen."""
