"""Routes and calls: join transport, protocols and Server."""
