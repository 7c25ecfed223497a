"""Tools for tests, shipped to users: manual clock, backend conformance suite, strategies."""
