"""What a capture knows at a moment: threads, their descriptors, containers.

Threads and descriptors are values that are replaced, never changed: an event keeps those of its own moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from security.capture.descriptors import Descriptor
from security.capture.host import Host, User
from security.capture.threads import Thread

THREADS_LIMIT = 262_144
DESCRIPTORS_LIMIT = 1 << 20
"""Of all processes."""
CHARACTERS_LIMIT = 1 << 30
"""Of the texts of all threads and descriptors. Texts that a child shares with its parent count twice."""
CONTAINERS_LIMIT = 4_096
ANCESTORS_LIMIT = 64
_UNKNOWN_PID = -1


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """Who did something: the thread, its main thread, the ancestors from the parent up, the users' names."""

    thread: Thread
    main: Thread
    ancestors: tuple[Thread, ...]
    session: Thread | None
    group: Thread | None
    container: dict[str, Any] | None
    user: User | None
    login: User | None
    group_name: str | None
    host: Host

    @property
    def parent(self) -> Thread | None:
        """The parent process, None when it is not known."""
        return self.ancestors[0] if self.ancestors else None


class State:
    """Threads by id, descriptors by process and number. `left_out` counts what went over a limit."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.containers: dict[str, dict[str, Any]] = {}
        self.left_out = 0
        self._threads: dict[int, Thread] = {}
        self._children: dict[int, set[int]] = {}
        self._files: dict[int, dict[int, Descriptor]] = {}
        self._files_count = 0
        self._weights: dict[int, int] = {}
        self._characters_count = 0
        self._contexts: dict[int, tuple[int, Context]] = {}
        self._version = 0

    def __len__(self) -> int:
        return len(self._threads)

    def known(self, tid: int) -> Thread | None:
        """The thread of an id."""
        return self._threads.get(tid)

    def thread(self, tid: int) -> Thread:
        """The thread of an id; one that nothing is known about has the name `<NA>`, as upstream."""
        return self._threads.get(tid) or Thread(tid, _UNKNOWN_PID, _UNKNOWN_PID)

    def put(self, thread: Thread) -> None:
        """Add a thread or take its new form."""
        before = self._threads.get(thread.tid)
        weight, known = _weight(thread), self._weights.get(thread.tid, 0)
        full = before is None and len(self._threads) >= THREADS_LIMIT
        if full or not self._takes(weight - known):
            self.left_out += 1
            return
        self._weights[thread.tid] = weight
        if before is None or before.ptid != thread.ptid:
            if before is not None:
                self._children.get(before.ptid, set()).discard(thread.tid)
            self._children.setdefault(thread.ptid, set()).add(thread.tid)
        self._threads[thread.tid] = thread
        self._version += 1

    def remove(self, tid: int, heir: int) -> None:
        """Forget a thread that ended; the children of its process go to `heir`."""
        thread = self._threads.pop(tid, None)
        if thread is None:
            self._drop_files(tid)
            return
        self._characters_count -= self._weights.pop(tid)
        self._contexts.pop(tid, None)
        self._version += 1
        siblings = self._children.get(thread.ptid)
        if siblings is not None:
            siblings.discard(tid)
            if not siblings:
                del self._children[thread.ptid]
        if thread.is_main:
            self._drop_files(tid)
            if heir != tid:
                for child in self._children.pop(tid, ()):
                    self.put(replace(self._threads[child], ptid=heir))

    def containers_changed(self) -> None:
        """Say that containers or users are other ones than before."""
        self._version += 1

    def files(self, thread: Thread) -> Mapping[int, Descriptor]:
        """The descriptors of a thread's process by number."""
        return self._files.get(_process(thread), {})

    def open(self, thread: Thread, descriptor: Descriptor) -> None:
        """Add a descriptor to a thread's process."""
        files = self._files.setdefault(_process(thread), {})
        before = files.get(descriptor.number)
        full = before is None and self._files_count >= DESCRIPTORS_LIMIT
        if full or not self._takes(len(descriptor.name) - (len(before.name) if before else 0)):
            self.left_out += 1
            return
        self._files_count += before is None
        files[descriptor.number] = descriptor

    def close(self, thread: Thread, number: int) -> None:
        """Take a descriptor away."""
        closed = self._files.get(_process(thread), {}).pop(number, None)
        if closed is not None:
            self._files_count -= 1
            self._characters_count -= len(closed.name)

    def copy_files(self, source: Thread, target: Thread) -> None:
        """Give a new process the descriptors of the one that made it."""
        if _process(source) == _process(target):
            return
        # What an earlier process of the same number had open is not the new one's.
        self._drop_files(_process(target))
        files = self._files.get(_process(source))
        if not files:
            return
        full = self._files_count + len(files) > DESCRIPTORS_LIMIT
        if full or not self._takes(_names(files)):
            self.left_out += len(files)
            return
        self._files_count += len(files)
        self._files[_process(target)] = dict(files)

    def _drop_files(self, pid: int) -> None:
        files = self._files.pop(pid, {})
        self._files_count -= len(files)
        self._characters_count -= _names(files)

    def _takes(self, characters: int) -> bool:
        """Account for texts; whether there is room for them."""
        if characters > 0 and self._characters_count + characters > CHARACTERS_LIMIT:
            return False
        self._characters_count += characters
        return True

    def context(self, tid: int) -> Context:
        """Who does something now; the same object as long as nothing about it changes."""
        cached = self._contexts.get(tid)
        if cached is not None and cached[0] == self._version:
            return cached[1]
        context = self._context(self.thread(tid))
        if cached is not None and _same(cached[1], context):
            context = cached[1]
        if tid in self._threads:
            self._contexts[tid] = (self._version, context)
        return context

    def _context(self, thread: Thread) -> Context:
        main = self._threads.get(thread.pid, thread)
        ancestors = tuple(self._ancestors(main))
        identity = thread.container
        place = identity.shown_id if identity else ""
        host = self.host
        return Context(
            thread,
            main,
            ancestors,
            self._leader(main.sid, main, ancestors, "sid"),
            self._leader(main.vpgid, main, ancestors, "vpgid"),
            self.containers.get(place) if place else None,
            None if thread.uid is None else host.user(place, thread.uid),
            None if thread.loginuid in (None, -1) else host.user(place, int(thread.loginuid or 0)),
            None if thread.gid is None else host.group(place, thread.gid),
            host,
        )

    def _ancestors(self, main: Thread) -> Iterator[Thread]:
        seen = {main.tid}
        at = main
        while len(seen) <= ANCESTORS_LIMIT:
            parent = self._threads.get(at.ptid)
            if parent is None:
                return
            parent = self._threads.get(parent.pid, parent)
            if parent.tid in seen:
                return
            seen.add(parent.tid)
            yield parent
            at = parent

    def _leader(
        self, number: int | None, main: Thread, ancestors: tuple[Thread, ...], member: str
    ) -> Thread | None:
        """The leader of a session or group. Its number is that of the namespace: the leader is the ancestor
        furthest away that has the same, as upstream looks for it."""
        if number is None:
            return None
        found = self._threads.get(number)
        if found is not None and found.vpid in (None, found.pid):
            return found
        leader = main
        for ancestor in ancestors:
            if getattr(ancestor, member) != number:
                break
            leader = ancestor
        return leader


def _process(thread: Thread) -> int:
    """Whose descriptors a thread has; one whose process is not known has its own."""
    return thread.tid if thread.pid == _UNKNOWN_PID else thread.pid


def _weight(thread: Thread) -> int:
    """Characters of a thread's longer texts."""
    lists = (thread.arguments, thread.environment, thread.cgroups)
    return len(thread.exe) + len(thread.cwd) + sum(sum(map(len, texts)) for texts in lists)


def _names(files: Mapping[int, Descriptor]) -> int:
    return sum(len(item.name) for item in files.values())


def _same(before: Context, now: Context) -> bool:
    return (
        before.thread is now.thread
        and before.main is now.main
        and len(before.ancestors) == len(now.ancestors)
        and all(a is b for a, b in zip(before.ancestors, now.ancestors, strict=True))
        and before.session is now.session
        and before.group is now.group
        and before.container is now.container
        and (before.user, before.login, before.group_name) == (now.user, now.login, now.group_name)
    )
