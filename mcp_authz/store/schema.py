"""The tables of a SQLite store: numbered migrations that are only ever appended to.

Times are microseconds since 1970 in UTC. Columns that hold JSON have its canonical text. Columns that could hold an
argument value or a result are sealed blobs, bound to their table, row and column.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from mcp_authz.errors import StoreError
from mcp_authz.store.schema_first import FIRST

APPLICATION_ID: Final = 0x6D637A61  # `mcza`; a database of another program is not touched

_WITH_A_STATUS: Final = (
    "agents", "clients", "grants", "keys", "links", "passkeys", "people", "sessions", "signing_keys",
    "standing_approvals",
)  # fmt: skip


def _raised_by(table: str) -> str:
    """The trigger that numbers each ending of a thing in this table."""
    return f"""CREATE TRIGGER endings_of_{table} AFTER UPDATE OF status ON {table} WHEN new.status <> old.status
            BEGIN UPDATE endings SET number = number + 1; END"""  # noqa: S608 - constants


MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    *FIRST,
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
    (
        # Numbered by triggers, so that no way to move a hold can be forgotten: who waits looks for larger numbers.
        "ALTER TABLE holds ADD COLUMN moved INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX holds_by_move ON holds (moved)",
        """CREATE TRIGGER a_new_hold_moves AFTER INSERT ON holds
            BEGIN UPDATE holds SET moved = (SELECT max(moved) + 1 FROM holds) WHERE position = new.position; END""",
        """CREATE TRIGGER a_hold_moves AFTER UPDATE OF state ON holds
            BEGIN UPDATE holds SET moved = (SELECT max(moved) + 1 FROM holds) WHERE position = new.position; END""",
        # Who approved may deny afterwards: the table is made anew, with one answer of each kind for each person.
        "ALTER TABLE verdicts RENAME TO verdicts_one_each",
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
            terms TEXT NOT NULL DEFAULT '{}',
            sent_back INTEGER NOT NULL DEFAULT 0 CHECK (sent_back IN (0, 1)),
            standing TEXT,
            PRIMARY KEY (hold_id, position),
            UNIQUE (hold_id, person, approve)
        ) STRICT, WITHOUT ROWID""",
        """INSERT INTO verdicts
            SELECT hold_id, position, person, approve, assurance, statement, signed_by, reason, given_at, terms, 0, NULL
            FROM verdicts_one_each""",
        "DROP TABLE verdicts_one_each",
        "CREATE INDEX holds_by_time ON holds (asked_at)",
        "ALTER TABLE holds ADD COLUMN bound TEXT NOT NULL DEFAULT '{}'",
        """CREATE TRIGGER a_verdict_moves_its_hold AFTER INSERT ON verdicts
            BEGIN UPDATE holds SET moved = (SELECT max(moved) + 1 FROM holds) WHERE id = new.hold_id; END""",
        # What a person approved before it is asked for; constraints may hold argument values, so that they are sealed.
        """CREATE TABLE standing_approvals (
            id TEXT PRIMARY KEY,
            person TEXT NOT NULL REFERENCES people (name),
            hold_id TEXT NOT NULL REFERENCES holds (id),
            session_id TEXT NOT NULL,
            actor TEXT NOT NULL,
            pattern BLOB NOT NULL,
            rules TEXT NOT NULL,
            assurance INTEGER NOT NULL,
            statement TEXT NOT NULL,
            signed_by TEXT NOT NULL,
            passkey BLOB,
            reason TEXT NOT NULL,
            given_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            most INTEGER NOT NULL CHECK (most > 0),
            used INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND most),
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX standing_approvals_by_actor ON standing_approvals (session_id, actor)",
        # A held call whose caller looks after it by polling (the tasks extension); what is said is sealed.
        """CREATE TABLE tasks (
            id TEXT PRIMARY KEY,
            hold_id TEXT NOT NULL REFERENCES holds (id),
            agent TEXT NOT NULL,
            session_id TEXT NOT NULL,
            client_id TEXT NOT NULL,
            request BLOB NOT NULL,
            progress BLOB NOT NULL,
            outcome BLOB,
            made_at INTEGER NOT NULL,
            updated_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX tasks_by_hold ON tasks (hold_id)",
        "CREATE INDEX tasks_by_expiry ON tasks (expires_at)",
        "CREATE INDEX tasks_by_agent ON tasks (agent, expires_at)",
        """CREATE TRIGGER a_task_moves_its_hold AFTER UPDATE ON tasks
            BEGIN UPDATE holds SET moved = (SELECT max(moved) + 1 FROM holds) WHERE id = new.hold_id; END""",
        # A third use of signing keys: checkpoints of the log.
        "ALTER TABLE signing_keys RENAME TO signing_keys_of_two_uses",
        """CREATE TABLE signing_keys (
            kid TEXT PRIMARY KEY,
            purpose TEXT NOT NULL CHECK (purpose IN ('issuer', 'context', 'checkpoint')),
            seed BLOB,
            made_at INTEGER NOT NULL,
            signs_from INTEGER NOT NULL,
            retires_at INTEGER,
            status TEXT NOT NULL CHECK (status IN ('active', 'revoked'))
        ) STRICT, WITHOUT ROWID""",
        """INSERT INTO signing_keys SELECT kid, purpose, seed, made_at, signs_from, retires_at, status
            FROM signing_keys_of_two_uses""",
        "DROP TABLE signing_keys_of_two_uses",
    ),
    (
        # What nobody can call: a tool of a server; with an empty tool a whole server; with an empty server anything.
        """CREATE TABLE switched_off (
            server TEXT NOT NULL,
            tool TEXT NOT NULL,
            since INTEGER NOT NULL,
            by TEXT NOT NULL,
            reason TEXT NOT NULL,
            PRIMARY KEY (server, tool),
            CHECK (server <> '' OR tool = '')
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        # The record that the kept log follows, since what was up to it was pruned; the first record's hash, and the
        # number of the record that tells of it. Who reads believes none of this without a checkpoint that says so.
        """CREATE TABLE log_base (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            sequence INTEGER NOT NULL,
            hash BLOB NOT NULL CHECK (length(hash) = 32),
            chain BLOB NOT NULL CHECK (length(chain) = 32),
            told INTEGER NOT NULL
        ) STRICT""",
        "INSERT INTO log_base (one, sequence, hash, chain, told) VALUES (1, 0, zeroblob(32), zeroblob(32), 0)",
        """CREATE TRIGGER log_base_only_grows BEFORE UPDATE ON log_base WHEN new.sequence <= old.sequence
            BEGIN SELECT RAISE(ABORT, 'what was pruned from the log never comes back'); END""",
        """CREATE TRIGGER log_base_stays BEFORE DELETE ON log_base
            BEGIN SELECT RAISE(ABORT, 'the log never loses its base'); END""",
        "DROP TRIGGER log_is_never_cut",
        """CREATE TRIGGER log_is_never_cut BEFORE DELETE ON log WHEN old.sequence > (SELECT sequence FROM log_base)
            BEGIN SELECT RAISE(ABORT, 'a record of the log is never deleted'); END""",
        # What was signed, by the digest that records name it by. It has argument values, or a digest of them without
        # a key, so that all of it is sealed and shredded with them. Signed links have none: `statements` has those.
        """CREATE TABLE evidence (
            number INTEGER PRIMARY KEY,
            digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
            kind TEXT NOT NULL CHECK (kind IN ('call-proof', 'verdict')),
            at INTEGER NOT NULL,
            body BLOB NOT NULL
        ) STRICT""",
        "CREATE INDEX call_proofs_by_age ON evidence (at) WHERE kind = 'call-proof'",
        "CREATE INDEX verdicts_by_standing ON verdicts (standing) WHERE standing IS NOT NULL",
        "CREATE INDEX standing_approvals_by_end ON standing_approvals (expires_at)",
        "ALTER TABLE holds ADD COLUMN shredded_at INTEGER",
        "CREATE INDEX holds_to_shred ON holds (ended_at) WHERE shredded_at IS NULL AND ended_at IS NOT NULL",
        # Each time a backup took the store's place; what was given before such a time and was open then is void.
        """CREATE TABLE epochs (
            number INTEGER PRIMARY KEY,
            began_at INTEGER NOT NULL,
            dated_from INTEGER NOT NULL,
            sequence INTEGER NOT NULL,
            reason TEXT NOT NULL
        ) STRICT""",
        # Raised by triggers, so that no way to take something away can be forgotten: what runs is looked at again.
        "CREATE TABLE endings (number INTEGER NOT NULL) STRICT",
        "INSERT INTO endings VALUES (0)",
        *map(_raised_by, _WITH_A_STATUS),
        """CREATE TRIGGER endings_of_calls AFTER INSERT ON switched_off
            BEGIN UPDATE endings SET number = number + 1; END""",
        """CREATE TRIGGER endings_of_groups AFTER UPDATE OF member_of ON people WHEN new.member_of <> old.member_of
            BEGIN UPDATE endings SET number = number + 1; END""",
        """CREATE TRIGGER endings_of_declared_keys AFTER DELETE ON keys
            BEGIN UPDATE endings SET number = number + 1; END""",
        """CREATE TRIGGER endings_of_epochs AFTER INSERT ON epochs
            BEGIN UPDATE endings SET number = number + 1; END""",
        # Calls that were admitted and whose outcome is not on record, each with the open store that has to write it.
        """CREATE TABLE begun (
            call TEXT PRIMARY KEY,
            instance TEXT NOT NULL,
            actor TEXT NOT NULL,
            tool TEXT NOT NULL,
            hold_id TEXT
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        # By which pages read a part of the sessions, however many there are.
        "CREATE INDEX sessions_by_start ON sessions (started_at, id)",
        "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
        "CREATE INDEX sessions_by_subject ON sessions (subject, started_at)",
        "CREATE INDEX sessions_by_agent ON sessions (agent, started_at)",
        "CREATE INDEX grants_by_subject ON grants (subject)",
    ),
    (
        # The public half, 32 bytes, which stays when the seed is deleted: what the key signed can still be verified.
        "ALTER TABLE signing_keys ADD COLUMN public BLOB",
    ),
    (
        # By which a request that somebody makes of their own agents finds these, however many others there are.
        "CREATE INDEX agents_by_owner ON agents (owner, name)",
    ),
)


def newest() -> int:
    """The version of the tables that this program knows."""
    return len(MIGRATIONS)


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
