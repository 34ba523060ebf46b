"""Errors of the store. What a user can cause is an exception with the field's own words."""

from __future__ import annotations


class StorageError(Exception):
    """Something the store could not do; the message is fit to show to a user."""


class OutOfOrderSampleError(StorageError):
    """A sample older than the series' newest and outside the out-of-order window."""


class OutOfBoundsError(StorageError):
    """A sample older or newer than the head accepts."""


class TooOldSampleError(StorageError):
    """A sample older than the out-of-order window."""


class DuplicateSampleError(StorageError):
    """A second, different value for a timestamp that already has one."""


class InvalidLabelsError(StorageError):
    """A label set without a name, with a duplicate name, or with invalid UTF-8."""


class LimitError(StorageError):
    """A configured limit was reached; the text names the limit and its value."""


class SeriesLimitError(LimitError):
    """More series than the store may have at one time; there may be room later."""


class CorruptionError(StorageError):
    """Bytes on disk that do not match their checksum or their format."""


class UnknownVersionError(StorageError):
    """A file written by a newer format than this program reads."""


class LockedError(StorageError):
    """The data directory is in use by another process."""


class DiskFullError(StorageError):
    """No space is left on the device; writes are refused until there is."""


class NotAtOnceError(StorageError):
    """A reader that must not wait would have to, or would have more to do than it may."""


class ClosedError(StorageError):
    """The database is closed or closing."""
