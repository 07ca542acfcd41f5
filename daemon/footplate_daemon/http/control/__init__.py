"""The control face: our own API, on the Unix socket only, described by its generated OpenAPI."""
