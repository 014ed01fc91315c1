"""Who may ask, from which pages, and how often.

Stands lowest: it may be imported by everything in the gateway and imports none of its rooms.
"""
