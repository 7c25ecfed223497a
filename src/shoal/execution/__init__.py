"""Runs batches: worker processes, shared memory, gather and scatter of rows."""
