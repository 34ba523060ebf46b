"""Reads by a thread that must not wait: the event loop's, which so answers small queries without a pool.

Whatever could take long is refused with NotAtOnceError: a lock that another thread has, expressions whose
values are not known yet, chunks that lie in files. How much there may be to do is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tsdb.errors import NotAtOnceError
from tsdb.head import Head
from tsdb.labels import Matcher


@contextmanager
def held_at_once(head: Head, matchers: Sequence[Matcher], labels_only: bool = False) -> Iterator[None]:
    """Hold the head's locks for a select by the matchers, or one that reads no samples. Raises
    NotAtOnceError."""
    postings = head.postings
    if not head.lock.acquire(blocking=False):
        raise NotAtOnceError("the head is written to")
    try:
        if not postings.lock.acquire(blocking=False):
            raise NotAtOnceError("the index of the head is in use")
        try:
            if not postings.has_scanned(matchers):
                raise NotAtOnceError("a regular expression has values to look at")
            if head.chunk_log.has_files and not labels_only:
                raise NotAtOnceError("chunks of the head lie in files")
            yield
        finally:
            postings.lock.release()
    finally:
        head.lock.release()
