"""The native API: ``/api/v1/chat`` (docs/api.md)."""
