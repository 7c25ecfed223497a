"""Which request runs next: admission, queues and batchers. Pure: no I/O and no clock."""
