"""`user.*` and `group.*`: numbers from the record, names as the process's own container has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agent.fields.process import NUMBERS
from agent.fields.view import Loader, View
from security.columns import AnyColumn, ColumnKey, NumberColumn

UNKNOWN_NAME = "<NA>"
"""What a look-up that failed leaves in these fields; official macros test for it."""
_ID_BITS = 32


def _groups(view: View, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    return view.containers.astype(np.int64) << _ID_BITS | (numbers & 0xFFFFFFFF)


def _user(view: View, row: int, uid: int) -> str:
    name = view.user_name(uid, row)
    return name or ("root" if uid == 0 else UNKNOWN_NAME)


def _user_name(view: View, key: ColumnKey) -> AnyColumn:
    uids = view.header["uid"].astype(np.int64)
    return view.of_groups(key, _groups(view, uids), lambda row: _user(view, row, int(uids[row])))


def _login_name(view: View, key: ColumnKey) -> AnyColumn:
    uids = view.number_of_state(("user.loginuid", None), NUMBERS["user.loginuid"]).values

    def name(row: int) -> str:
        return UNKNOWN_NAME if uids[row] < 0 else _user(view, row, int(uids[row]))

    return view.of_groups(key, _groups(view, uids), name)


def _group_name(view: View, key: ColumnKey) -> AnyColumn:
    gids = view.header["gid"].astype(np.int64)

    def name(row: int) -> str:
        now_ns = int(view.header["time_ns"][row])
        found = view.known.users.group(int(gids[row]), view.process(row), now_ns)
        return found or UNKNOWN_NAME

    return view.of_groups(key, _groups(view, gids), name)


def _account(part: Callable[[View, int, int], str]) -> Loader:
    def load(view: View, key: ColumnKey) -> AnyColumn:
        uids = view.header["uid"].astype(np.int64)
        return view.of_groups(key, _groups(view, uids), lambda row: part(view, row, int(uids[row])))

    return load


def _home(view: View, row: int, uid: int) -> str:
    return view.known.users.home(uid, view.process(row), int(view.header["time_ns"][row])) or UNKNOWN_NAME


def _shell(view: View, row: int, uid: int) -> str:
    return view.known.users.shell(uid, view.process(row), int(view.header["time_ns"][row])) or UNKNOWN_NAME


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    return {
        "user.uid": lambda view, key: NumberColumn(view.header["uid"]),
        "group.gid": lambda view, key: NumberColumn(view.header["gid"]),
        "user.name": _user_name,
        "user.loginname": _login_name,
        "user.homedir": _account(_home),
        "user.shell": _account(_shell),
        "group.name": _group_name,
    }
