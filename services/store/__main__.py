"""Start a store: its bus, its files, its loop (``python -m services.store``)."""

from services.store.store import main

__all__ = ["main"]
