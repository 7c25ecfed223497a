"""What a model says of itself: read, check, complete, compile to a ModelSpec."""
