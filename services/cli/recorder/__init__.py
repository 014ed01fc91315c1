"""The flight recorder: the recorded log, opened for a command, and what is found in it."""
