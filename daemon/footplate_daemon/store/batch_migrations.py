"""How the database of files and batches came to be: as `migrations`, for a file of its own.

A batch of 50,000 lines must not make those wait who store what somebody types.
"""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE files (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        by_key INTEGER NOT NULL,
        purpose TEXT NOT NULL,
        filename TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER
    );
    CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;

    CREATE TABLE batches (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        by_key INTEGER NOT NULL,
        allowed_models TEXT NOT NULL DEFAULT '[]',
        endpoint TEXT NOT NULL,
        input_file_id TEXT NOT NULL,
        input_filename TEXT,
        input_bytes INTEGER,
        completion_window TEXT NOT NULL,
        metadata TEXT,
        output_expires_seconds INTEGER,
        status TEXT NOT NULL,
        models TEXT NOT NULL DEFAULT '[]',
        errors TEXT,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        in_progress_at INTEGER,
        finalizing_at INTEGER,
        completed_at INTEGER,
        failed_at INTEGER,
        expired_at INTEGER,
        cancelling_at INTEGER,
        cancelled_at INTEGER,
        output_file_id TEXT NOT NULL,
        error_file_id TEXT NOT NULL,
        output_bytes INTEGER NOT NULL DEFAULT 0,
        error_bytes INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL DEFAULT 0,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        cached_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        reasoning_tokens INTEGER NOT NULL DEFAULT 0,
        retries INTEGER NOT NULL DEFAULT 0,
        running_seconds REAL NOT NULL DEFAULT 0,
        joules REAL
    );
    CREATE INDEX batches_unfinished ON batches (status)
        WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');

    CREATE TABLE lines (
        batch INTEGER NOT NULL,
        number INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        custom_id TEXT NOT NULL,
        model INTEGER NOT NULL,
        prefix INTEGER NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        deaths INTEGER NOT NULL DEFAULT 0,
        seconds REAL,
        answer_offset INTEGER,
        answer_length INTEGER,
        PRIMARY KEY (batch, number)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX lines_by_custom_id ON lines (batch, custom_id);
    CREATE INDEX lines_pending ON lines (batch, model, prefix, number) WHERE state = 0;

    CREATE TABLE line_errors (
        batch INTEGER NOT NULL,
        code TEXT NOT NULL,
        status_code INTEGER NOT NULL,
        count INTEGER NOT NULL,
        example TEXT NOT NULL,
        PRIMARY KEY (batch, code, status_code)
    ) WITHOUT ROWID;
    """,
)
