"""Every test of natterlog; `support` holds what they share."""
