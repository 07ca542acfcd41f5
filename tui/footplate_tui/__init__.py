"""Footplate's terminal and command line; talks to the daemon through `footplate_daemon.client` alone."""
