"""Says what is wrong once, and now and then how often it was so since: no flood of requests makes a flood of lines."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Final

from mcp_authz import limits

_PAUSE: Final = limits.TROUBLE_TOLD.total_seconds()


class Seldom:
    """A log in which the same words stand once in a while, whoever says them and however often."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when, and how often it was not said since
        self._lock = threading.Lock()

    def error(self, about: object, words: str, *args: object) -> None:
        """The line is in the log, or counted: one about the same thing is there, and not a minute old."""
        now, key = time.monotonic(), str(about)
        with self._lock:
            then, more = self._said.get(key, (-_PAUSE, 0))
            if now - then < _PAUSE:
                self._said[key] = (then, more + 1)
                return
            self._said[key] = (now, 0)
            self._said.move_to_end(key)
            while len(self._said) > limits.TROUBLES_TOLD:
                self._said.popitem(last=False)
        self._log.error(words + (f" ({more} times more since it was said last)" if more else ""), *args)


trouble: Final = Seldom(logging.getLogger("mcp_authz.store"))
"""What the store cannot do, as everybody who asks it meets it: one line for all of them."""
