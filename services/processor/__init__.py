"""Conducts runs of several steps: one todo in, the next todo or the final out."""
