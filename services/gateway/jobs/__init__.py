"""A user's jobs as they go on: one feed a user, one state a job.

Knows no transport and no dialect; :mod:`services.gateway.http` and above import it.
"""
