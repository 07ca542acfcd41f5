"""SQLite: everything that must outlive the daemon; nobody else speaks SQL."""
