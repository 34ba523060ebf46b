"""Reads by a thread that must not wait: the event loop's, which so answers small queries without a pool.

Whatever could take long is refused with NotAtOnceError: a lock that another thread has, expressions whose
values are not known yet, chunks that lie in files. How much there may be to do is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Sequence

from tsdb.errors import NotAtOnceError
from tsdb.head import Head
from tsdb.labels import Matcher


class HeldAtOnce:
    """`with HeldAtOnce(head, matchers):` holds the head's locks for a select by the matchers, or for one that
    reads no samples. Entering raises NotAtOnceError."""

    __slots__ = ("_head", "_labels_only", "_matchers")

    def __init__(self, head: Head, matchers: Sequence[Matcher], labels_only: bool = False) -> None:
        self._head, self._matchers, self._labels_only = head, matchers, labels_only

    def __enter__(self) -> None:
        head, postings = self._head, self._head.postings
        if not head.lock.acquire(blocking=False):
            raise NotAtOnceError("the head is written to")
        if not postings.lock.acquire(blocking=False):
            head.lock.release()
            raise NotAtOnceError("the index of the head is in use")
        try:
            if not postings.has_scanned(self._matchers):
                raise NotAtOnceError("a regular expression has values to look at")
            if head.chunk_log.has_files and not self._labels_only:
                raise NotAtOnceError("chunks of the head lie in files")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._head.postings.lock.release()
        self._head.lock.release()
