"""The first five migrations of a SQLite store, as they are; `schema` has those that followed."""

from __future__ import annotations

from typing import Final

FIRST: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE people (
            name TEXT PRIMARY KEY,
            member_of TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE agents (
            name TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            labels TEXT NOT NULL,
            roles TEXT NOT NULL,
            ceiling TEXT NOT NULL,
            depth INTEGER NOT NULL,
            delegates_to TEXT NOT NULL,
            interactive INTEGER NOT NULL CHECK (interactive IN (0, 1)),
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE keys (
            thumbprint TEXT PRIMARY KEY,
            holder TEXT NOT NULL,
            raw BLOB NOT NULL UNIQUE CHECK (length(raw) = 32),
            added_at INTEGER NOT NULL,
            retires_at INTEGER,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX keys_by_holder ON keys (holder)",
        """CREATE TABLE grants (
            id TEXT PRIMARY KEY,
            subject TEXT NOT NULL,
            agent TEXT NOT NULL REFERENCES agents (name),
            scope TEXT NOT NULL,
            tools TEXT,
            granted_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX grants_by_agent ON grants (agent)",
        """CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            grant_id TEXT NOT NULL REFERENCES grants (id),
            subject TEXT NOT NULL,
            agent TEXT NOT NULL REFERENCES agents (name),
            mode TEXT NOT NULL,
            purpose TEXT NOT NULL,
            started_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            last_used_at INTEGER NOT NULL,
            max_calls INTEGER,
            calls_made INTEGER NOT NULL CHECK (calls_made >= 0),
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
            CHECK (max_calls IS NULL OR calls_made <= max_calls)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX sessions_by_grant ON sessions (grant_id)",
        """CREATE TABLE links (
            id TEXT PRIMARY KEY,
            session_id TEXT NOT NULL REFERENCES sessions (id),
            parent_id TEXT REFERENCES links (id),
            holder TEXT NOT NULL REFERENCES agents (name),
            scope TEXT NOT NULL,
            tools TEXT,
            depth INTEGER NOT NULL,
            max_depth INTEGER NOT NULL,
            issued_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            max_calls INTEGER,
            calls_made INTEGER NOT NULL CHECK (calls_made >= 0),
            reason TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
            CHECK (max_calls IS NULL OR calls_made <= max_calls)
        ) STRICT, WITHOUT ROWID""",
        "CREATE UNIQUE INDEX one_root_per_session ON links (session_id) WHERE parent_id IS NULL",
        "CREATE INDEX links_by_session ON links (session_id, holder)",
        "CREATE INDEX links_by_holder ON links (holder, expires_at)",
        "CREATE INDEX links_by_parent ON links (parent_id)",
        # A hold may be asked for before there is a session (a request for one), so `session_id` refers to nothing.
        """CREATE TABLE holds (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,
            digest BLOB NOT NULL,
            tool TEXT NOT NULL,
            server TEXT NOT NULL,
            arguments BLOB NOT NULL,
            hazard TEXT NOT NULL,
            session_id TEXT NOT NULL,
            purpose TEXT NOT NULL,
            subject TEXT NOT NULL,
            owner TEXT NOT NULL,
            actor TEXT NOT NULL,
            chain TEXT NOT NULL,
            interactive INTEGER NOT NULL CHECK (interactive IN (0, 1)),
            rules TEXT NOT NULL,
            asked_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            ended_at INTEGER,
            result BLOB,
            claimed_by TEXT
        ) STRICT""",
        "CREATE INDEX holds_of_a_call ON holds (session_id, actor, digest)",
        "CREATE INDEX holds_that_wait ON holds (expires_at) WHERE state IN ('pending', 'approved')",
        "CREATE INDEX holds_by_state ON holds (state)",
        "CREATE INDEX holds_by_session ON holds (session_id, state)",
        "CREATE INDEX holds_by_actor ON holds (actor, state)",
        """CREATE TABLE verdicts (
            hold_id TEXT NOT NULL REFERENCES holds (id),
            position INTEGER NOT NULL,
            person TEXT NOT NULL,
            approve INTEGER NOT NULL CHECK (approve IN (0, 1)),
            assurance INTEGER NOT NULL,
            statement TEXT NOT NULL,
            signed_by TEXT NOT NULL,
            reason TEXT NOT NULL,
            given_at INTEGER NOT NULL,
            PRIMARY KEY (hold_id, position),
            UNIQUE (hold_id, person)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE once (
            kind TEXT NOT NULL,
            id TEXT NOT NULL,
            expires_at INTEGER NOT NULL,
            PRIMARY KEY (kind, id)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX once_by_expiry ON once (expires_at)",
        # Kind and call are read out of the body, so that they cannot say anything else.
        """CREATE TABLE log (
            sequence INTEGER PRIMARY KEY,
            body BLOB NOT NULL,
            hash BLOB NOT NULL CHECK (length(hash) = 32),
            kind TEXT GENERATED ALWAYS AS (json_extract(CAST(body AS TEXT), '$.kind')) VIRTUAL,
            call TEXT GENERATED ALWAYS AS (json_extract(CAST(body AS TEXT), '$.call')) VIRTUAL
        ) STRICT""",
        "CREATE INDEX log_by_kind ON log (kind, sequence)",
        "CREATE INDEX log_by_call ON log (call, sequence) WHERE call IS NOT NULL",
        """CREATE TRIGGER log_is_never_altered BEFORE UPDATE ON log
            BEGIN SELECT RAISE(ABORT, 'a record of the log is never altered'); END""",
        """CREATE TRIGGER log_is_never_cut BEFORE DELETE ON log
            BEGIN SELECT RAISE(ABORT, 'a record of the log is never deleted'); END""",
        """CREATE TABLE log_head (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            sequence INTEGER NOT NULL,
            hash BLOB NOT NULL CHECK (length(hash) = 32)
        ) STRICT""",
        "INSERT INTO log_head (one, sequence, hash) VALUES (1, 0, zeroblob(32))",
        """CREATE TABLE pins (
            server TEXT NOT NULL,
            tool TEXT NOT NULL,
            digest BLOB NOT NULL,
            definition TEXT NOT NULL,
            seen_at INTEGER NOT NULL,
            changed TEXT,
            changed_digest BLOB,
            PRIMARY KEY (server, tool),
            CHECK ((changed IS NULL) = (changed_digest IS NULL))
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE secrets (
            name TEXT PRIMARY KEY,
            value BLOB NOT NULL
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE holds ADD COLUMN ends_with TEXT NOT NULL DEFAULT 'rule'",
        "ALTER TABLE verdicts ADD COLUMN terms TEXT NOT NULL DEFAULT '{}'",
        """CREATE TABLE passkeys (
            credential BLOB PRIMARY KEY,
            person TEXT NOT NULL REFERENCES people (name),
            public_key BLOB NOT NULL,
            sign_count INTEGER NOT NULL,
            label TEXT NOT NULL,
            added_at INTEGER NOT NULL,
            last_used_at INTEGER,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX passkeys_by_person ON passkeys (person)",
        """CREATE TABLE invitations (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            person TEXT NOT NULL REFERENCES people (name),
            made_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            used_at INTEGER
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE sign_ins (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            person TEXT NOT NULL REFERENCES people (name),
            credential BLOB NOT NULL REFERENCES passkeys (credential),
            began_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            ended_at INTEGER
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE agents ADD COLUMN parent TEXT",
        "ALTER TABLE agents ADD COLUMN ends_at INTEGER",
        "ALTER TABLE agents ADD COLUMN metadata_url TEXT",
        "CREATE INDEX agents_by_parent ON agents (parent) WHERE parent IS NOT NULL",
        "ALTER TABLE links ADD COLUMN holder_key TEXT",
        "ALTER TABLE links ADD COLUMN signed_by TEXT",
        "ALTER TABLE links ADD COLUMN statement BLOB",
        # `above` refers to nothing by itself: a statement is checked against it by its digest, whenever it is read.
        """CREATE TABLE statements (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            above BLOB CHECK (length(above) = 32),
            text TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE enrolments (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            agent TEXT NOT NULL REFERENCES agents (name),
            made_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            used_at INTEGER
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX enrolments_by_agent ON enrolments (agent)",
    ),
    ("ALTER TABLE holds ADD COLUMN mode TEXT NOT NULL DEFAULT 'delegated'",),
    ("ALTER TABLE keys ADD COLUMN proved INTEGER NOT NULL DEFAULT 1 CHECK (proved IN (0, 1))",),
)
