"""Real servers, fake upstreams and in-memory twins for the tests."""
