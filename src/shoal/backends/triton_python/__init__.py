"""What a Triton Python model gets to see of the server: the parts of ``triton_python_backend_utils``."""
