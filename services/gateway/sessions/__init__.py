"""A session's live feed, kept once, and each client's cursor into it.

Knows no transport and no dialect; :mod:`services.gateway.http` and above import it.
"""
