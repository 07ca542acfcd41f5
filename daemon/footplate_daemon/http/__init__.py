"""The daemon's faces: control and gateway over HTTP, on the Unix socket and on TCP."""
