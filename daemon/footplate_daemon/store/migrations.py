"""How the database came to be: one SQL script for each version, run in order, never changed once released.

Written for SQLite 3.26 and later (the one of RHEL 8): no STRICT, no RETURNING.
"""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL
    );
    CREATE INDEX sessions_by_update ON sessions (updated_at);

    CREATE TABLE turns (
        session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        state TEXT NOT NULL,
        prompt TEXT NOT NULL,
        parameters TEXT NOT NULL,
        answer TEXT NOT NULL DEFAULT '',
        reasoning TEXT NOT NULL DEFAULT '',
        runtime TEXT,
        variant TEXT,
        model TEXT,
        asked_at REAL NOT NULL,
        ended_at REAL,
        ttft_seconds REAL,
        tokens_per_second REAL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        finish_reason TEXT,
        request_id TEXT,
        error TEXT,
        PRIMARY KEY (session_id, number)
    );
    CREATE INDEX turns_unfinished ON turns (state) WHERE state IN ('waiting', 'streaming');

    CREATE TABLE facts (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );

    CREATE TABLE switches (
        id INTEGER PRIMARY KEY,
        variant TEXT NOT NULL,
        preset TEXT,
        outcome TEXT NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        steps TEXT NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX switches_by_variant ON switches (variant, outcome, id);

    CREATE TABLE memory_peaks (
        variant TEXT NOT NULL,
        preset TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        measured_at REAL NOT NULL,
        PRIMARY KEY (variant, preset)
    );

    CREATE TABLE exchanges (
        id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL,
        client TEXT,
        model_asked TEXT,
        variant TEXT,
        runtime TEXT,
        started_at REAL NOT NULL,
        queue_ms REAL,
        switch_ms REAL,
        ttft_ms REAL,
        total_ms REAL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        tokens_per_second REAL,
        finish_reason TEXT,
        http_status INTEGER,
        outcome TEXT NOT NULL,
        error TEXT
    );
    CREATE INDEX exchanges_by_request ON exchanges (request_id);
    CREATE INDEX exchanges_running ON exchanges (outcome) WHERE outcome = 'running';
    """,
    "ALTER TABLE turns ADD COLUMN warning TEXT;",
)
