"""Sockets: listener, HTTP/1.1, HTTP/2 and TLS. Bytes and connections, no models."""
