"""How the database came to be: one SQL script for each version, run in order, never changed once released.

Written for SQLite 3.26 and later (the one of RHEL 8): no STRICT, no RETURNING.
"""

_LEDGER = """
    ALTER TABLE exchanges ADD COLUMN path TEXT NOT NULL DEFAULT '/v1/chat/completions';
    ALTER TABLE exchanges ADD COLUMN streamed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE exchanges ADD COLUMN session_id TEXT;
    ALTER TABLE exchanges ADD COLUMN preset TEXT;
    ALTER TABLE exchanges ADD COLUMN profile TEXT;
    ALTER TABLE exchanges ADD COLUMN reasoning_tokens INTEGER;
    ALTER TABLE exchanges ADD COLUMN cached_tokens INTEGER;
    ALTER TABLE exchanges ADD COLUMN itl_p50_ms REAL;
    ALTER TABLE exchanges ADD COLUMN itl_p99_ms REAL;
    ALTER TABLE exchanges ADD COLUMN hint TEXT;
    DROP INDEX exchanges_running;
    CREATE INDEX exchanges_under_way ON exchanges (outcome) WHERE outcome IN ('waiting', 'running');
    CREATE INDEX exchanges_by_start ON exchanges (started_at);

    CREATE TABLE bodies (
        exchange_id INTEGER PRIMARY KEY REFERENCES exchanges (id) ON DELETE CASCADE,
        request BLOB,
        answer BLOB,
        request_bytes INTEGER NOT NULL,
        answer_bytes INTEGER NOT NULL
    );

    CREATE TABLE ledger (newest_id INTEGER NOT NULL, body_bytes INTEGER NOT NULL);
    INSERT INTO ledger VALUES (0, 0);
    CREATE TRIGGER bodies_come AFTER INSERT ON bodies BEGIN
        UPDATE ledger SET body_bytes = body_bytes
            + coalesce(length(NEW.request), 0) + coalesce(length(NEW.answer), 0);
    END;
    CREATE TRIGGER bodies_change AFTER UPDATE ON bodies BEGIN
        UPDATE ledger SET body_bytes = body_bytes
            + coalesce(length(NEW.request), 0) + coalesce(length(NEW.answer), 0)
            - coalesce(length(OLD.request), 0) - coalesce(length(OLD.answer), 0);
    END;
    CREATE TRIGGER bodies_go AFTER DELETE ON bodies BEGIN
        UPDATE ledger SET body_bytes = body_bytes
            - coalesce(length(OLD.request), 0) - coalesce(length(OLD.answer), 0);
    END;
"""

_SEARCH = """
    DROP INDEX sessions_by_update;
    DROP INDEX turns_unfinished;
    ALTER TABLE turns RENAME TO turns_before;
    ALTER TABLE sessions RENAME TO sessions_before;

    -- The keys are what the full-text index points to; a rowid without a name changes at VACUUM.
    CREATE TABLE sessions (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        system TEXT,
        parameters TEXT NOT NULL DEFAULT '{}',
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        forked_from TEXT,
        forked_turn INTEGER,
        deleted_at REAL
    );
    CREATE INDEX sessions_by_update ON sessions (updated_at, id);
    CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;

    CREATE TABLE turns (
        key INTEGER PRIMARY KEY,
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
        preset TEXT,
        profile TEXT,
        asked_at REAL NOT NULL,
        ended_at REAL,
        ttft_seconds REAL,
        tokens_per_second REAL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        finish_reason TEXT,
        request_id TEXT,
        error TEXT,
        warning TEXT,
        UNIQUE (session_id, number)
    );
    CREATE INDEX turns_unfinished ON turns (state) WHERE state IN ('waiting', 'streaming');

    CREATE VIRTUAL TABLE title_words USING fts5(
        title, content = 'sessions', content_rowid = 'key', tokenize = 'unicode61 remove_diacritics 1'
    );
    CREATE TRIGGER title_words_added AFTER INSERT ON sessions BEGIN
        INSERT INTO title_words (rowid, title) VALUES (new.key, new.title);
    END;
    CREATE TRIGGER title_words_removed AFTER DELETE ON sessions BEGIN
        INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.key, old.title);
    END;
    CREATE TRIGGER title_words_changed AFTER UPDATE OF title ON sessions WHEN old.title <> new.title BEGIN
        INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.key, old.title);
        INSERT INTO title_words (rowid, title) VALUES (new.key, new.title);
    END;

    -- An answer is indexed when its turn ends, not whenever some text is added to it; until then the index
    -- holds the prompt alone. What is taken out must be exactly what was put in.
    CREATE VIRTUAL TABLE turn_words USING fts5(
        prompt, answer, reasoning,
        content = 'turns', content_rowid = 'key', tokenize = 'unicode61 remove_diacritics 1'
    );
    CREATE TRIGGER turn_words_added AFTER INSERT ON turns BEGIN
        INSERT INTO turn_words (rowid, prompt, answer, reasoning) VALUES (
            new.key, new.prompt,
            CASE WHEN new.state IN ('waiting', 'streaming') THEN '' ELSE new.answer END,
            CASE WHEN new.state IN ('waiting', 'streaming') THEN '' ELSE new.reasoning END
        );
    END;
    CREATE TRIGGER turn_words_removed AFTER DELETE ON turns BEGIN
        INSERT INTO turn_words (turn_words, rowid, prompt, answer, reasoning) VALUES (
            'delete', old.key, old.prompt,
            CASE WHEN old.state IN ('waiting', 'streaming') THEN '' ELSE old.answer END,
            CASE WHEN old.state IN ('waiting', 'streaming') THEN '' ELSE old.reasoning END
        );
    END;
    CREATE TRIGGER turn_words_changed AFTER UPDATE OF state, prompt, answer, reasoning ON turns
    WHEN new.state NOT IN ('waiting', 'streaming') BEGIN
        INSERT INTO turn_words (turn_words, rowid, prompt, answer, reasoning) VALUES (
            'delete', old.key, old.prompt,
            CASE WHEN old.state IN ('waiting', 'streaming') THEN '' ELSE old.answer END,
            CASE WHEN old.state IN ('waiting', 'streaming') THEN '' ELSE old.reasoning END
        );
        INSERT INTO turn_words (rowid, prompt, answer, reasoning)
        VALUES (new.key, new.prompt, new.answer, new.reasoning);
    END;

    INSERT INTO sessions (id, title, created_at, updated_at)
        SELECT id, title, created_at, updated_at FROM sessions_before ORDER BY created_at;
    INSERT INTO turns (
        session_id, number, state, prompt, parameters, answer, reasoning, runtime, variant, model, asked_at,
        ended_at, ttft_seconds, tokens_per_second, prompt_tokens, completion_tokens, finish_reason,
        request_id, error, warning
    ) SELECT
        session_id, number, state, prompt, parameters, answer, reasoning, runtime, variant, model, asked_at,
        ended_at, ttft_seconds, tokens_per_second, prompt_tokens, completion_tokens, finish_reason,
        request_id, error, warning
    FROM turns_before ORDER BY asked_at;
    DROP TABLE turns_before;
    DROP TABLE sessions_before;
"""

_KEYS = """
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        prefix TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        created_at REAL NOT NULL,
        expires_at REAL,
        revoked_at REAL,
        last_used_at REAL,
        models TEXT NOT NULL,
        requests_per_minute INTEGER
    );
"""

_BRANCHES = """
    ALTER TABLE turns ADD COLUMN instead_of INTEGER;
    ALTER TABLE turns ADD COLUMN after INTEGER;
    ALTER TABLE turns ADD COLUMN continue_of INTEGER;
    ALTER TABLE turns ADD COLUMN attachments TEXT NOT NULL DEFAULT '[]';

    CREATE TABLE attachments (
        session_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        place INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (session_id, number, place),
        FOREIGN KEY (session_id, number) REFERENCES turns (session_id, number) ON DELETE CASCADE
    );
"""

_BENCHMARKS = """
    CREATE TABLE benchmark_runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        purpose TEXT NOT NULL,
        state TEXT NOT NULL,
        record TEXT NOT NULL,
        before TEXT
    );
    CREATE INDEX benchmark_runs_by_state ON benchmark_runs (state);

    CREATE TABLE benchmark_cells (
        run INTEGER NOT NULL REFERENCES benchmark_runs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        record TEXT NOT NULL,
        requests BLOB,
        PRIMARY KEY (run, number)
    );

    CREATE TABLE weight_hashes (
        path TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        changed_ns INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    );
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
    _LEDGER,
    _SEARCH,
    _KEYS,
    _BRANCHES,
    _BENCHMARKS,
)
