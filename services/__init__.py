"""The four services, the supervisor that starts them, and the command line."""
