"""Every bound of the gateway, with its unit and its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# What one message may be.
BODY_BYTES: Final = 4 * 1024 * 1024  # the SDK's own bound; larger bodies answer 413
JSON_DEPTH: Final = 64  # deep enough for real schemas, far below any parser's recursion limit
JSON_INTEGER: Final = 2**53 - 1  # beyond it two readers may see two numbers (RFC 8259 section 6)
HEAD_BYTES: Final = 64 * 1024  # request line and all headers; one that is not complete by then is refused
HEAD_TIME: Final = timedelta(seconds=10)  # from the connection, or from its last answer, to the end of the headers
BODY_TIME: Final = timedelta(seconds=30)  # from the end of the headers to the end of the body
HEADER_BYTES: Final = 16 * 1024  # one header value; tokens of 8 links stay below
ARGUMENTS_SHOWN: Final = 8 * 1024  # characters of arguments a person can be asked to approve

# How long things live.
CLOCK_SKEW: Final = timedelta(seconds=30)
ACCESS_TOKEN_LIFETIME: Final = timedelta(minutes=10)
ASSERTION_LIFETIME: Final = timedelta(minutes=10)  # stock clients sign for five minutes
IDENTITY_ASSERTION_LIFETIME: Final = timedelta(minutes=20)  # the draft's own example lives for 1000 seconds
SESSION_LIFETIME: Final = timedelta(hours=12)
SESSION_IDLE: Final = timedelta(hours=2)
PEOPLE_REMEMBERED: Final = timedelta(days=1)  # how long an agent of two people names one, after one of them ended
GRANT_LIFETIME: Final = timedelta(days=90)
DELEGATION_LIFETIME: Final = timedelta(hours=1)  # of a link for which the delegator names no lifetime
OWN_NAME_TOKEN_LIFETIME: Final = timedelta(minutes=1)  # so that a session which a person starts is soon found
CONTEXT_LIFETIME: Final = timedelta(minutes=1)  # of a context token: from forwarding to the tool server's check
KEY_OVERLAP: Final = timedelta(days=1)  # how long a rotated key may still stand behind what was issued before
REPLAY_WINDOW: Final = timedelta(minutes=2)  # an identical call gets the recorded outcome again
REQUEST_STATE_LIFETIME: Final = timedelta(minutes=15)
KEY_OVERLAP_SELF: Final = timedelta(hours=12)  # the same where an agent replaces its own key: no session is cut short
LINK_OVERLAP: Final = timedelta(minutes=10)  # how long links that a replaced key signed can still be redeemed
ROTATION_PAUSE: Final = timedelta(hours=1)  # after an agent's new key was refused: asking again would be no better
KEY_PROOF_AGE: Final = timedelta(minutes=2)  # of the proof by which a new key asks to be an agent's
ENROLMENT_CODE: Final = timedelta(hours=1)  # of the one-time code by which an agent registers its key
INVITATION: Final = timedelta(hours=1)  # of the one-time link by which a person registers a passkey
SIGN_IN_LIFETIME: Final = timedelta(hours=12)  # of a browser's cookie: a working day
SIGN_IN_IDLE: Final = timedelta(hours=2)  # between two requests of a browser that is signed in; a lunch fits in
SIGN_IN_NOTED: Final = timedelta(minutes=1)  # how exactly the last use of a browser is known
AUTHORIZATION_CODE: Final = timedelta(minutes=1)  # from the click to the token endpoint; RFC 6749 section 4.1.2 has 10
REFRESH_TOKEN: Final = timedelta(days=30)  # unused; each use gives the next one, until the grant ends
KEY_PUBLISHED: Final = timedelta(minutes=10)  # before it signs; readers keep the published keys for 5 minutes
TOKEN_KEY_OVERLAP: Final = ACCESS_TOKEN_LIFETIME + 2 * CLOCK_SKEW  # access tokens of a replaced key of the gateway
ROOT_KEY_OVERLAP: Final = SESSION_LIFETIME + 2 * CLOCK_SKEW  # the same for the roots of chains, which end with sessions
CONTEXT_KEY_OVERLAP: Final = timedelta(minutes=10)  # the same for context tokens, of which each lives a minute
SIGNING_KEY_AGE: Final = timedelta(days=365)  # then `doctor` says that another one should sign
BACKUP_AGE: Final = timedelta(days=30)  # then `doctor` says that there should be a newer one
SIGNING_KEYS_STALE: Final = timedelta(seconds=10)  # how long the gateway's keys count while they cannot be read anew
SIGNING_KEYS_READ: Final = timedelta(milliseconds=250)  # between two looks at the gateway's keys, at least
DPOP_NONCE: Final = timedelta(minutes=5)  # a nonce counts in the stretch of time it was given out in, and the next
CHALLENGE_LIFETIME: Final = timedelta(minutes=5)  # from the question to the passkey's answer

# The keys that a tool server fetches from the gateway, and what it remembers of context tokens.
KEYS_FETCHED: Final = timedelta(seconds=5)  # to their last byte; a call waits for it
KEYS_BYTES: Final = 64 * 1024
KEYS_KEPT: Final = timedelta(hours=1)  # then they are fetched again, so that a key that was taken back ends
KEYS_PAUSE: Final = timedelta(minutes=1)  # between two fetches, whatever key ids strangers name
KEYS_RETRY: Final = timedelta(seconds=5)  # after a fetch that failed
CONTEXTS_REMEMBERED: Final = 100_000  # ids of accepted tokens, for 90 seconds each; about 25 MB at most

# Chains.
CHAIN_LINKS: Final = 8
CALL_PROOF_ARGUMENTS: Final = 64 * 1024  # bytes in canonical form; a proof carries larger ones as a digest
CALL_PROOF_BYTES: Final = 128 * 1024  # base64url of those, and the rest
CHAIN_BYTES: Final = 64 * 1024  # of all signed links together, read before any cryptography
LINKS_PER_SESSION: Final = 4_096  # delegations of one session; an agent must not fill the store
LINKS_PER_HOLDER: Final = 64  # open ones of one agent in one session; a sign-in looks at each
CHILDREN_PER_AGENT: Final = 1_024  # children whose links have not ended
LINKS_REMEMBERED: Final = 4 * 1024 * 1024  # bytes of links whose signatures were verified; 20 times that in memory
CONSTRAINT_DEPTH: Final = 32
LINK_JSON_DEPTH: Final = JSON_DEPTH + 2 * CONSTRAINT_DEPTH + 8  # a value in the innermost of nested constraints
CONSTRAINT_CLAUSES: Final = 32  # in one argument's constraint, all levels; two are compared clause by clause
CONSTRAINT_VALUES: Final = 256  # in one argument's constraint, all clauses; each may be looked up for each clause
TOOLS_BYTES: Final = 16 * 1024  # canonical form of one tools map; each call compares those of 8 links, in 50 ms at most

# What comes from tool servers and is worked on for their callers.
LISTING_PAUSE: Final = timedelta(milliseconds=500)  # between two listings of servers that say their tools changed
DEFINITION_BYTES: Final = 256 * 1024  # of one tool; a larger one is left out of the list
LISTED_NAME: Final = 128  # characters a tool server may give a tool's name
SCHEMA_STEPS: Final = 50_000  # work for one check of arguments against a schema; about a second at most

# Names and scopes.
TOOL_NAME: Final = 48  # characters of `server__tool`; hosts prefix it again
SCOPE_CHARACTERS: Final = 256
SCOPES: Final = 128  # scopes in one list
TOKEN_BYTES: Final = 16 * 1024
PASSPHRASE: Final = 8  # characters of a new one, at least (NIST SP 800-63B section 5.1.1.1)
NAME: Final = 63  # characters of an agent's or a person's name
PURPOSE: Final = 256  # characters that say why: of a session's purpose, a delegation's reason
DPOP_BYTES: Final = 4 * 1024  # of one proof of possession, with its key; real ones have 500
FORM_BYTES: Final = 96 * 1024  # one request to the token endpoint: an assertion, and CHAIN_BYTES of links or a token
ID_CHARACTERS: Final = 256  # of the id that a client gives its assertion
SIGN_INS: Final = 16  # token requests under way at once, each in a worker thread; later ones wait
SIGN_INS_REFUSED: Final = 100  # requests of one source that may be refused at once, before it is told to slow down
SIGN_INS_REFUSED_PER_SECOND: Final = 1.0
SIGN_INS_CROWDED: Final = 2  # of such sources' requests at once: whoever proves themselves among them waits, no more

# What a record takes over from a call.
NAMES_RECORDED: Final = 32  # names of arguments
DETAIL_RECORDED: Final = 512  # characters of why a call was denied
INTENT_RECORDED: Final = 256  # characters of why a caller says that it calls
VALUE_RECORDED: Final = 512  # bytes of one argument's value in canonical form; of a larger one its digest
VALUES_RECORDED: Final = 4 * 1024  # of all values of one call together
VALUE_DEPTH: Final = 4  # objects and lists in each other

# Agents that are hosted elsewhere.
METADATA_TIME: Final = timedelta(seconds=5)  # for one metadata document, from the name's look-up to its last byte
METADATA_BYTES: Final = 64 * 1024  # one document
METADATA_URL: Final = 512  # characters
METADATA_FRESH: Final = timedelta(hours=1)  # how long the keys that were read count without being read again
METADATA_KEPT: Final = timedelta(hours=24)  # how long they count when they cannot be read again
METADATA_PAUSE: Final = timedelta(minutes=1)  # between two readings of one agent's document

# The OpenID provider that people sign in with.
PROVIDER_TIME: Final = timedelta(seconds=5)  # for one exchange with it, to the last byte
PROVIDER_BYTES: Final = 256 * 1024  # of one answer: keys of a large provider, or somebody's many groups
PROVIDER_SIGN_IN: Final = timedelta(minutes=15)  # from leaving for it to coming back; a second factor fits in
NEXT_PAGE: Final = 2_048  # characters of the page to come back to; with the rest it must fit into one cookie
APPROVAL_SIGN_IN: Final = timedelta(minutes=15)  # how long ago who approves without a passkey may have signed in
LINKS_BURST: Final = 20  # one-time links, and answers of the provider, that one source may get wrong at once
LINKS_PER_SECOND: Final = 0.2

# Clients that people sign in to.
SCOPES_OFFERED: Final = 64  # one person can look through; more are put together by their first segment
GRANTS_PER_CLIENT: Final = 16  # of one person to one client that count at once: its installations; the oldest ends
CONSENT_TIME: Final = timedelta(minutes=15)  # that a person may take to read, after a sign-in that had to be fresh
STEP_UPS_PER_HOUR: Final = 20  # how often one session may send its person back to agree to more
STEP_UP_ONCE: Final = timedelta(minutes=1)  # within which the same question counts once
STEP_UP_REPEATED: Final = 5  # how often it may be repeated within that time
MAX_AGE_SECONDS: Final = 86_400  # the longest ago that a policy may let a sign-in be that it calls fresh
STEP_UP_REMEMBERED: Final = timedelta(minutes=15)  # how long the page can name the call that asked
STEP_UPS: Final = 10_000  # agents, and sessions, whose last step-ups are remembered; the oldest is forgotten first
REDIRECT_URIS: Final = 16  # of one client
REDIRECT_URI: Final = 2_048  # characters
CLIENT_NAME: Final = 64  # characters of how a client calls itself
STATE: Final = 4_096  # characters of the `state` that a client gets back
AUTHORIZATION_QUERY: Final = 16 * 1024  # bytes of one authorization request
DYNAMIC_CLIENTS: Final = 1_000  # that registered themselves
DYNAMIC_UNUSED: Final = timedelta(days=1)  # then one that nobody ever agreed to is forgotten
DOCUMENTS: Final = 256  # metadata documents of clients that are remembered; the one longest unused is forgotten first
DOCUMENTS_AT_ONCE: Final = 8  # fetched for clients that nobody agreed to yet; strangers choose those URLs
DOCUMENTS_PER_MINUTE: Final = 30  # the same, whoever asks
REGISTRATIONS_BURST: Final = 20  # clients that one source may register at once
REGISTRATIONS_PER_SECOND: Final = 0.1

# What a company's identity provider says.
PROVIDER_KEYS_FRESH: Final = timedelta(hours=1)  # how long they count without being fetched again
PROVIDER_KEYS_KEPT: Final = timedelta(hours=24)  # how long they count when they cannot be fetched
PROVIDER_PAUSE: Final = timedelta(minutes=1)  # between two fetches, whatever key ids clients name
AMR: Final = 16  # words that say how a person signed in there
AMR_CHARACTERS: Final = 64

# Enrolment by one-time codes.
ENROLMENTS_BURST: Final = 20  # codes that one source may get wrong at once
ENROLMENTS_PER_SECOND: Final = 0.2

# Holds.
HOLDS_PER_SESSION: Final = 20  # pending at once; a flood is refused, not queued
HOLDS_PER_AGENT: Final = 50
TASKS_PER_AGENT: Final = 100  # that have not expired; beyond it a held call is told of in another way
TASK_POLL: Final = timedelta(seconds=2)  # between two polls, as clients are told; each reads two rows
TASK_WRITTEN: Final = timedelta(seconds=2)  # from the end of a failed call until its error can be read
TASKS_LISTENED: Final = 64  # tasks that one stream tells of
LISTENERS: Final = 1024  # streams that tell of changes, at once
LISTENERS_PER_AGENT: Final = 64  # of them, with those of the agents that it passed its authority on to
CHANGES_WAITING: Final = 1024  # of one stream whose client reads slowly; then it is ended
STANDING_CALLS: Final = 100  # that one standing approval permits, at most
STANDING_TIME: Final = timedelta(minutes=30)  # of a standing approval, where nobody chooses
STANDING_LONGEST: Final = SESSION_LIFETIME  # it ends with its session in any case
STANDING_SHOWN: Final = 1024  # characters of the lists of values that a person permits; they are shown whole
WAIT_LONGEST: Final = timedelta(seconds=200)  # of one call for its verdict; stock clients give up after ten rounds
WAIT_ROUND: Final = timedelta(seconds=25)  # of one request of 2026-07-28, which is then asked to come again
WAIT_OLDER: Final = timedelta(seconds=45)  # of a request of an older client: many give up after a minute
WAIT_PROGRESS: Final = timedelta(seconds=10)  # between two words of progress to somebody who waits
WAITING_PER_HOLD: Final = 8  # requests that wait for one hold; others are told at once
WAITING: Final = 4096  # requests that wait in one process
WAIT_PAUSE: Final = timedelta(milliseconds=10)  # between two looks at which holds moved, however much is written

# Policy.
POLICY_LOOKED_AT: Final = timedelta(milliseconds=500)  # between two readings of its files; two alike, and they count
REGO_SECONDS: Final = 1.0  # for one evaluation, which takes less than a thousandth of it; then its process is ended
REGO_BYTES: Final = 512 * 1024 * 1024  # resident, for the process that evaluates
REGO_LOAD_SECONDS: Final = 20.0  # to start the process and to compile
SHADOW_WAITING: Final = 256  # calls that the shadow policy has not been asked about; later ones are left out
SHADOW_AT_ONCE: Final = 8
SHADOW_TIME: Final = timedelta(seconds=5)  # for one answer of it
SHADOW_RECORDED: Final = 20  # differences that are recorded one by one in a minute; the rest is counted by rule

OBSERVE_REMINDER: Final = timedelta(hours=1)  # between two warnings that a server is only observed

# The page.
PASSKEYS_PER_PERSON: Final = 10  # active at once
CHALLENGES: Final = 256  # questions to passkeys that wait at once, of each kind; the oldest is forgotten first
PAGE_BODY_BYTES: Final = 32 * 1024  # one request of the page: a passkey's answer and a reason
REASON: Final = 1024  # characters of the reason that goes with a verdict
STREAMS_PER_SIGN_IN: Final = 4  # browsers open six connections to one host: two are left for the pages themselves
STREAM_KEPT_ALIVE: Final = timedelta(seconds=15)  # between two comments on a stream where nothing happens
STREAM_PAUSE: Final = timedelta(milliseconds=200)  # between two looks at what waits, however much is written
ALIKE_LOOKED_AT: Final = 50  # approved calls of one kind, newest first, among which the same one is looked for
LATEST_LOOKED_AT: Final = 200  # calls that were asked for last, among which those decided lately are looked for
DECIDED_SHOWN: Final = 20  # calls that were decided lately, in the list
SESSIONS_SHOWN: Final = 50  # on one page, of those that are open and of those that were
AGENTS_SHOWN: Final = 50  # on one page
TOOLS_SHOWN: Final = 100  # on one page
PEOPLE_SHOWN: Final = 50  # on one page; clients as well
TREE_SHOWN: Final = 200  # links of one session, in its tree and in its picture
HELD_SHOWN: Final = 50  # links of one agent that its page shows
ENDINGS_READ: Final = 1_000  # revocations since a session began that are read to say who ended what
REPLACEMENT_SHOWN: Final = timedelta(days=7)  # how long the page says that somebody's passkeys were replaced

# Administration: what one person costs everybody else.
RECORDS_LOOKED_AT: Final = 200_000  # records that one request looks through: some tenths of a second
EXPORTED_BYTES: Final = 4 * 1024 * 1024  # of records in one answer to an export
EXPORTS_PER_SECOND: Final = 1 / 600  # records of one person's exports: they ask for page after page
BUNDLE_BYTES: Final = 4 * 1024 * 1024  # of the bundle of one call in an answer
BUNDLE_RECORDS: Final = 1_000  # of the call itself, in such a bundle
BUNDLE_WITHIN: Final = timedelta(seconds=30)  # for looking through the whole log for it, while others are served
BUNDLES_BURST: Final = 100  # bundles that one person takes at once: each has a record
BUNDLES_PER_SECOND: Final = 1.0
READERS_WAITING: Final = 8  # requests of one person that read the log or wait for that; one reads at a time
ATTEMPTS_BURST: Final = 20  # attempts of one person without the role that have a record each; the rest is a number
ATTEMPTS_PER_SECOND: Final = 0.1
ATTEMPTS_OF: Final = 1_000  # people whose attempts are counted; the one longest ago is forgotten

# What a person is told on their desktop.
NOTICES_PER_MINUTE: Final = 4  # notifications; what is held meanwhile is told at once, as a number
NOTICES_WAITING: Final = 64  # held calls that wait to be told of; the oldest is in the list like all others
NOTICES_LOGGED: Final = 60  # lines a minute about calls that policy wants to be told of; then a number
NOTICE_SENT: Final = timedelta(seconds=10)  # for the desktop to take one
NOTICE_PAUSE: Final = timedelta(seconds=1)  # between two looks at what need not be shown any more
NOTICE_CHECKED: Final = timedelta(seconds=15)  # the longest between two of them

# Webhooks.
WEBHOOK_TIME: Final = timedelta(seconds=10)  # for one attempt, from the name's look-up to the head of the answer
WEBHOOK_PAUSES: Final = tuple(timedelta(seconds=s) for s in (1, 5, 30, 120))  # between attempts
WEBHOOK_PAUSE_LONGEST: Final = timedelta(minutes=5)  # however long a receiver wants to be left alone
WEBHOOK_HOLDS: Final = 256  # held calls whose messages are on their way or whose end is waited for; others go untold
WEBHOOK_AT_ONCE: Final = 4  # messages to one receiver
WEBHOOK_LOOKED_AT: Final = timedelta(seconds=15)  # between two looks at a hold that nothing was heard of
WEBHOOK_AGE: Final = timedelta(minutes=5)  # of a signed answer, on both sides (Standard Webhooks has no number)
WEBHOOK_BODY_BYTES: Final = 16 * 1024  # of one answer: its reason is the longest part
SMALL_BODY_TIME: Final = timedelta(seconds=10)  # for an answer or a command, from its headers to the end of its body
WEBHOOK_BURST: Final = 50  # answers of one source that may be refused at once, before it is told to slow down
WEBHOOK_PER_SECOND: Final = 1.0

# Sources that have not been identified.
SOURCE_BURST: Final = 200  # requests a source may make at once before it is identified
SOURCE_PER_SECOND: Final = 50.0
SOURCES: Final = 10_000  # sources remembered; the oldest is forgotten first
REFUSALS_RECORDED: Final = 100  # of them recorded by source in one minute; the rest is summed up by reason
REFUSAL_KINDS: Final = 1_000  # distinct (reason, source) counters kept in one minute

# What policy wants to be taken out of results.
REDACTIONS: Final = 4  # messages that are searched at once, each in a thread; others wait
REDACTION_TIME: Final = timedelta(seconds=5)  # for one message; what is not searched by then is withheld

# Tool servers.
ANSWER_BYTES: Final = 16 * 1024 * 1024  # one message of a tool server; a larger one ends its call
TOOLS_LISTED: Final = 10_000  # tools of one server; a list that never ends is no list
NOTIFICATIONS_WAITING: Final = 256  # of one call, while its caller reads slowly; later ones are dropped
LOG_LINE: Final = 4096  # bytes of one stderr line that reach the log
START_TIMEOUT: Final = timedelta(seconds=60)  # to the end of the handshake; package runners download first
CALL_TIMEOUT: Final = timedelta(minutes=5)
NOTICE_TIMEOUT: Final = timedelta(seconds=10)  # for an HTTP message that has no answer; it delays those behind it
STOP_GRACE: Final = timedelta(seconds=2)  # after closing stdin, and again after SIGTERM; then SIGKILL
RESTART_FIRST: Final = timedelta(milliseconds=200)  # doubles with each failure
RESTART_LONGEST: Final = timedelta(seconds=30)
RESTART_FORGIVEN: Final = timedelta(minutes=1)  # a connection that lived longer starts again without delay growing

# The store.
STORE_QUEUE: Final = 1024  # writes that wait for the disk; beyond it a call is refused at once instead of queued
STORE_BATCH: Final = 128  # jobs in one flush; a lost power supply undoes at most these, none of them answered
LOG_KEPT_LEAST: Final = timedelta(days=30)  # longer than anything that the gateway itself looks up in its log
PRUNED_AT_ONCE: Final = 250  # rows of the log removed in one flush, some milliseconds in which others wait
PRUNING_PAUSE: Final = timedelta(milliseconds=50)  # between two such flushes
STORE_RESERVE: Final = 64 * 1024 * 1024  # bytes of the disk that are left to decisions and what ends them
STORE_BYTES: Final = 64 * 1024 * 1024  # of arguments and results that wait for the disk, together
STORE_AGAIN: Final = timedelta(milliseconds=250)  # between two tries to write what has to be written
CALLS_BEGUN: Final = 4096  # calls of one process that run, or whose outcome waits for the disk; others are refused
STORE_LOCKED: Final = timedelta(seconds=5)  # how long a write waits for another process
CHANGES_LOOKED_FOR: Final = timedelta(seconds=1)  # while somebody waits for what another process writes, and is told
CHANGES_LOOKED_FOR_ALONE: Final = timedelta(milliseconds=250)  # the same where nobody can tell
STORES_TOLD: Final = 64  # other open stores that one write wakes; whoever is not among them looks unasked
INPUTS_LIFETIME: Final = timedelta(days=7)  # of what calls were decided upon, where the configuration says nothing
INPUTS_KEPT: Final = 100_000  # calls whose policy input is kept, for replaying; about 200 MB, the oldest goes first
EVIDENCE_LIFETIME: Final = timedelta(days=30)  # of what has argument values, where the configuration says nothing
PROOFS_KEPT: Final = 1_000_000  # signed calls whose proof is kept; about 1 GB, the oldest goes first
SHREDDING: Final = timedelta(hours=1)  # between two looks at whether something has had its time, where nobody calls
SHREDDED_AT_ONCE: Final = 64  # of each kind, in one flush that others may wait for
INPUT_BYTES: Final = 64 * 1024  # of one; calls with larger arguments cannot be replayed
RECOVERED: Final = timedelta(seconds=2)  # between two looks whether a process that runs a held call is still there
ONCE_KEPT: Final = timedelta(hours=1)  # a used id is remembered beyond its expiry: clocks of two processes may differ

# What is said of a trouble that many requests meet.
TROUBLE_TOLD: Final = timedelta(minutes=1)  # between two lines about the same
TROUBLES_TOLD: Final = 64  # that are remembered; the oldest is forgotten first

# A policy decision point that is asked over HTTP.
PDP_TIME: Final = timedelta(seconds=1)  # for one question, to the last byte of its answer; a call waits for it
PDP_ANSWER_BYTES: Final = 64 * 1024
PDP_ANSWER_DEPTH: Final = 16
PDP_CONNECTIONS: Final = 64  # at once; further questions wait for one, within their time
PDP_ASKING: Final = 1_024  # questions under way or waiting; beyond it a call is denied at once
PDP_FAILURES: Final = 5  # in a row, after which it is not asked for a while
PDP_PAUSE_FIRST: Final = timedelta(seconds=1)  # doubles with each failure of the one question after it
PDP_PAUSE_LONGEST: Final = timedelta(seconds=30)
PDP_METADATA_KEPT: Final = timedelta(hours=1)  # where it is asked; then its metadata are read again
POLICY_RULES: Final = 64  # ids of determining rules in one answer
POLICY_OBLIGATIONS: Final = 16  # in one answer
POLICY_ARGUMENT: Final = 256  # characters of one obligation's argument
