"""Text that gives a model orders, where it should only describe: what it asks for, in a few words.

Every pattern spans a bounded distance: one sentence beside another is no evidence (a description is often one long
line). Vendors shout at models too (`MUST`, `ALWAYS`), so forceful words alone are none either.
"""

from __future__ import annotations

import re
from typing import Final

from mcp_authz.rules.hidden_text import without_hidden
from mcp_authz.rules.lookalike import folded

_NOT: Final = r"\b(?:do not|don'?t|never|must not|should not|shouldn'?t|avoid|without)\b"
_PEOPLE: Final = r"(?:user|human|person|people|operator|anyone|anybody|customer)s?\b(?!['-])"
_TALK: Final = r"(?:tell|inform|mention|reveal|notify|alert|disclos|explain|admit|warn|show)\w{0,4}"
_TOOLS: Final = r"(?:this|the|any|another|every|each|other|all)(?: other)? (?:tool|function|request|call|action|quer)"
_RUN: Final = r"(?:using|calling|invoking|running|executing|answering|responding|returning|you (?:use|call|invoke|run))"
_TALKED: Final = (
    r"(?:conversation|chat|message history|messages|system prompt|prompt history|context window|transcript)"
)
_KEYS: Final = r"(?:credential|secret|password|private key|api[ _-]?key|ssh key|access token|environment variable)s?"
_ACCOUNT: Final = r"(?:[\w.+-]{1,64}@[\w-]{1,63}\.|\+\d{7})"

_PATTERNS: Final = tuple(
    (re.compile(pattern), says)
    for pattern, says in (
        (
            r"\b(?:ignore|disregard|forget|override|bypass|supersede)s?\b.{0,20}"
            r"\b(?:previous|prior|above|earlier|preceding|existing|system|safety|your|all other|any other)\b.{0,20}"
            r"\b(?:instruction|prompt|rule|guideline|directive|command|restriction|polic|safeguard)",
            "tells the model to disregard its instructions",
        ),
        (r"\b(?:advised|told|instructed|trained) to refuse\b", "tells the model to disregard its instructions"),
        (
            _NOT + r".{0,24}\b" + _TALK + r"\b.{0,24}\b" + _PEOPLE,
            "tells the model to keep something from people",
        ),
        (
            r"\bkeep (?:this|it|that) (?:a )?(?:secret|hidden|private|confidential|invisible)\b"
            r"|\b(?:secretly|covertly|silently|quietly) "
            r"(?:read|send|call|include|copy|forward|upload|run|pass|add|bcc)",
            "tells the model to keep something from people",
        ),
        (
            r"\b(?:before|prior to|after|whenever|when|while|each time|every time)\b.{0,16}(?:"
            + _RUN
            + "|"
            + _TOOLS
            + ")"
            r".{0,48}\b(?:read|open|cat|access|retrieve|load|dump|collect)\b.{0,40}"
            r"(?:\bfiles?\b|\bconfig|" + _KEYS + r"|~/|/etc/|\.env\b|\.ssh)",
            "tells the model to read something before or after it is called",
        ),
        (
            r"\b(?:before|after) (?:you )?(?:answer|respond|repl|return|continu|do)\w{0,5}\b.{0,30}"
            r"\b(?:read|open|cat|send|upload|call|invoke)\b.{0,40}(?:~/|/etc/|\.ssh|https?:|\bcontents?\b|"
            + _KEYS
            + ")",
            "tells the model to read something before or after it is called",
        ),
        (
            r"\b(?:always|must|first|should)\b.{0,16}\b(?:call|use|invoke|run|execute)\b.{1,48}"
            r"(?:\bfirst\b(?! \w+ (?:lines?|rows?|pages?|results?|items?))"
            r"|\bbefore (?:any|every|all|each|other|anything)\b"
            r"|\bfor (?:any|every|all|each) (?:request|question|message|quer|task|user|conversation|other))",
            "tells the model when to call tools, whatever it is asked for",
        ),
        (
            r"\bmust (?:always )?be (?:called|used|invoked|run|executed) "
            r"(?:first\b|before (?:any|every|all|each|other)|for (?:any|every|all|each))",
            "tells the model when to call tools, whatever it is asked for",
        ),
        (
            r"\b(?:include|send|pass|provide|copy|forward|append|attach|put|insert|submit|paste)\b.{0,24}"
            r"\b(?:full|entire|complete|whole|all|exact|verbatim|your|previous)\b.{0,16}\b" + _TALKED,
            "asks for the conversation",
        ),
        (
            r"\b(?:include|send|pass|copy|forward|append|attach|put|insert|submit|paste|upload|exfiltrate|leak)\b.{0,24}"
            r"\b(?:contents? of|value of|all|any|every|the user'?s|your)\b.{0,24}(?:\b" + _KEYS + r"|~/|/etc/|\.ssh)",
            "asks for secrets",
        ),
        (
            r"(?:\b(?:bcc|cc|forward|redirect|send (?:it|all|every|them|each))\b"
            r"|\b(?:change|replace|swap|set|use)\b.{0,24}\b(?:recipient|phone number|proxy|address)).{0,64}" + _ACCOUNT,
            "names an address to send things to",
        ),
        (
            r"\buser (?:has )?(?:already )?(?:consented|agreed to this|pre-?approved|pre-?authori[sz]ed)"
            r"|\b(?:do not|don'?t|never|no need to) (?:ask|wait|prompt|request)\b.{0,24}"
            r"\b(?:confirm|permission|approval|consent|before)",
            "says that nobody need be asked",
        ),
        (
            r"\bfrom now on\b"
            r"|\byou are (?:now )?(?:an?|the) (?:ai\b|assistant|helpful|language model|unrestricted|admin)"
            r"|\byour (?:new|real|true|actual) (?:task|role|goal|instruction|objective)",
            "tells the model who it is",
        ),
    )
)

# The one that looks at lines: a role at the beginning of one.
_MARKERS: Final = re.compile(
    r"<\s?/?\s?(?:important|system|critical|instructions?|side_?note|secret_instructions?|hidden)\s?>"
    r"|\[/?(?:inst|system|hidden|important)[\]:]|<<sys>>|<\|[a-z_]{1,20}\|>"
    r"|\b(?:important |new |hidden )system (?:instruction|message|prompt)|#{2,} ?(?:system|instructions?)\b ?:?"
    r"|(?:^|\n)[ \t]{0,8}(?:system|assistant|developer|human) ?:[ \t]{0,8}"
    r"(?:you|ignore|always|never|do not|from now)"
)
_SECRETS: Final = re.compile(
    r"(?<![a-z0-9])id_(?:rsa|ed25519|ecdsa)\b|[~/\\]\.(?:ssh|aws|gnupg|kube|netrc|pgpass|docker/config)\b|/etc/(?:passwd|shadow)\b"
    r"|\.cursor/mcp\.json|claude_desktop_config|\bauthorized_keys\b"
)
_BLOB: Final = re.compile(r"[A-Za-z0-9+/_-]{160,}={0,2}")
_BEACON: Final = re.compile(r"!\[[^\]\n]{0,80}\]\(\s?https?:|<img\b[^>\n]{0,80}\bsrc|javascript:|data:text/html")
_WHITE: Final = re.compile(r"\s+")


def orders(text: str) -> tuple[str, ...]:
    """Return what this text tells a model to do, each thing once, in the words that follow `its description`."""
    plain = folded(without_hidden(text)).replace("\u2019", "'")
    sentence = _WHITE.sub(" ", plain)
    found = [says for pattern, says in _PATTERNS if pattern.search(sentence)]
    if _MARKERS.search(plain):
        found.append("has markers of a prompt")
    return tuple(dict.fromkeys(found))


def names_secrets(text: str) -> bool:
    """Whether the text names a place where a person's keys or passwords are kept."""
    return _SECRETS.search(folded(without_hidden(text))) is not None


def is_encoded(text: str) -> bool:
    """Whether the text has a long piece that nobody can read, as base64 is."""
    return any(len(set(found[0])) > 16 for found in _BLOB.finditer(text))


def calls_out(text: str) -> bool:
    """Whether showing the text could load something from elsewhere, or run it."""
    return _BEACON.search(folded(text)) is not None
