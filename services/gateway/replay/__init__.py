"""Recordings, shown as their clients saw them, by the code that shows what is live.

Stands below the dialects, each of which says how its own look (its ``replay`` module).
"""
