"""The only service that clients talk to: dialects in front, feeds behind."""
