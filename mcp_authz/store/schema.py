"""The tables of a SQLite store: numbered migrations that are only ever appended to.

Times are microseconds since 1970 in UTC. Columns that hold JSON have its canonical text. Columns that could hold an
argument value or a result are sealed blobs, bound to their table, row and column.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from mcp_authz.errors import StoreError

APPLICATION_ID: Final = 0x6D637A61  # `mcza`; a database of another program is not touched

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
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
    (
        "ALTER TABLE agents ADD COLUMN client_id TEXT",
        "CREATE UNIQUE INDEX agents_by_client ON agents (client_id, owner) WHERE client_id IS NOT NULL",
        "ALTER TABLE grants ADD COLUMN client_id TEXT",
        "ALTER TABLE grants ADD COLUMN auth_at INTEGER",
        "ALTER TABLE grants ADD COLUMN amr TEXT",
        "ALTER TABLE grants ADD COLUMN auth_issuer TEXT",
        """CREATE TABLE clients (
            id TEXT PRIMARY KEY,
            handle TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('registered', 'document', 'dynamic')),
            redirect_uris TEXT NOT NULL,
            method TEXT NOT NULL,
            jwks TEXT,
            secret BLOB CHECK (length(secret) = 32),
            registered_at INTEGER NOT NULL,
            read_at INTEGER,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE codes (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            grant_id TEXT NOT NULL REFERENCES grants (id),
            client_id TEXT NOT NULL,
            agent TEXT NOT NULL REFERENCES agents (name),
            redirect_uri TEXT NOT NULL,
            challenge TEXT NOT NULL,
            scope TEXT NOT NULL,
            confirmation TEXT,
            made_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            used_at INTEGER
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE refresh_tokens (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            grant_id TEXT NOT NULL REFERENCES grants (id),
            client_id TEXT NOT NULL,
            confirmation TEXT,
            made_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            used_at INTEGER
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id)",
        "CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at)",
        """CREATE TABLE identities (
            issuer TEXT NOT NULL,
            subject TEXT NOT NULL,
            person TEXT NOT NULL REFERENCES people (name),
            linked_at INTEGER NOT NULL,
            PRIMARY KEY (issuer, subject)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX identities_by_person ON identities (person)",
        # A person may have signed in elsewhere, without a passkey: the table is made anew, with whoever is signed in.
        "ALTER TABLE sign_ins RENAME TO sign_ins_by_passkey",
        """CREATE TABLE sign_ins (
            digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
            person TEXT NOT NULL REFERENCES people (name),
            credential BLOB REFERENCES passkeys (credential),
            began_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            ended_at INTEGER,
            last_used_at INTEGER NOT NULL,
            auth_at INTEGER NOT NULL,
            amr TEXT NOT NULL,
            auth_issuer TEXT,
            CHECK ((credential IS NULL) = (auth_issuer IS NOT NULL))
        ) STRICT, WITHOUT ROWID""",
        """INSERT INTO sign_ins
            SELECT digest, person, credential, began_at, expires_at, ended_at,
                began_at, began_at, '["swk","user"]', NULL
            FROM sign_ins_by_passkey""",
        "DROP TABLE sign_ins_by_passkey",
        "CREATE INDEX sign_ins_by_person ON sign_ins (person)",
    ),
    (
        # The seed of a key that is over is deleted; without one a row is history, whatever else it says.
        """CREATE TABLE signing_keys (
            kid TEXT PRIMARY KEY,
            purpose TEXT NOT NULL CHECK (purpose IN ('issuer', 'context')),
            seed BLOB,
            made_at INTEGER NOT NULL,
            signs_from INTEGER NOT NULL,
            retires_at INTEGER,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        # One row for each admitted call that a rate limit counts, until it counts no more.
        """CREATE TABLE counted (
            key TEXT NOT NULL,
            at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX counted_by_key ON counted (key, at)",
        "CREATE INDEX counted_by_expiry ON counted (expires_at)",
        # Amounts are millionths; an account is a session, or a person's day.
        """CREATE TABLE spent (
            budget TEXT NOT NULL,
            account TEXT NOT NULL,
            amount INTEGER NOT NULL CHECK (amount >= 0),
            expires_at INTEGER NOT NULL,
            PRIMARY KEY (budget, account)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX spent_by_expiry ON spent (expires_at)",
    ),
    (
        # What each call was decided upon, for a while; numbered without gaps, so that counting them takes no reading.
        """CREATE TABLE inputs (
            number INTEGER PRIMARY KEY,
            sequence INTEGER NOT NULL UNIQUE REFERENCES log (sequence),
            at INTEGER NOT NULL,
            sealed BLOB NOT NULL
        ) STRICT""",
        "CREATE INDEX inputs_by_age ON inputs (at)",
    ),
)


def migrate(db: sqlite3.Connection) -> None:
    """The database has every table of this version; one that has them already is not written to.

    Raises:
        StoreError: the database belongs to another program, or to a newer version of this one.
    """
    if _version(db) == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")  # several processes may open a new store at once: whoever waits here finds it done
    try:
        version = _version(db)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError("the file is the database of another program; name another file as the store")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the store was written by a newer version (schema {version}, this one knows {len(MIGRATIONS)}); "
            "install that version, or restore the backup made before the upgrade"
        )
    return int(version)
