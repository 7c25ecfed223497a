"""Bytes to requests and responses to bytes: pure functions in both directions."""
