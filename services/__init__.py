"""The four services and the supervisor that starts them."""
