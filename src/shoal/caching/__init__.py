"""The response cache: answers that are kept, so that the same request need not run its model again.

::

    contract     what a cache is, what it counts, what it tells
    settings     ``--cache-config`` checked and typed
    key          a request's key: a strong hash of all that its answer depends on
    content      which model exactly an answer came from
    local        the cache in this process's memory: least recently used goes first
    codec        a response as one string of bytes, for caches elsewhere
    redis        the cache in Redis, and what guards the server from it (with ``redis_client``, ``circuit``)
    sink         stands before a model: looks up, runs what is missing, keeps what succeeded
    order        keeps the order of answers where the model's configuration asks for it
    make         puts them together
"""
