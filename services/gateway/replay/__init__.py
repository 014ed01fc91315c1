"""Recordings, shown as their clients saw them, by the code that shows what is live.

Stands above the dialects; ``app`` and the command line import it.
"""
