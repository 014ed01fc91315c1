"""Providers turn a prompt into text; one file each, and ``registry`` finds them."""
