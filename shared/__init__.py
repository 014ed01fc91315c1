"""What two or more services need: events, subjects, the bus, settings, errors."""
