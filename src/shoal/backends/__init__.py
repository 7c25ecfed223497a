"""What runs a model, inside a worker process: the contract and one file per backend."""
