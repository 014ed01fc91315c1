"""Turns each chat todo into a streamed reply in the log."""
