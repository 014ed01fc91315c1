"""The transports, written once for all dialects, and runs from their start to their end.

Imported by the dialects; imports none of them.
"""
