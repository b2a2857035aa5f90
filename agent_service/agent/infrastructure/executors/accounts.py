"""Accounts of this host, and what they may enter."""

import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """Who a command runs as; `switches` says whether that is another than the agent's own."""

    name: str
    home: str
    shell: str
    uid: int
    gid: int
    groups: Sequence[int]
    switches: bool

    def environment(self) -> dict[str, str]:
        """The variables that every command of this account starts with."""
        return {
            "PATH": _SEARCH_PATH,
            "HOME": self.home,
            "USER": self.name,
            "SHELL": self.shell,
            "LANG": os.environ.get("LANG") or "C.UTF-8",
            "TZ": os.environ.get("TZ") or ":/etc/localtime",
        }

    def may_enter(self, folder: Path) -> bool:
        """Whether the permissions of `folder` and all above it let this account in.

        Raises OSError where `folder` does not exist.
        """
        resolved = folder.resolve(strict=True)
        return all(self._may_search(step.stat()) for step in (resolved, *resolved.parents))

    def _may_search(self, entry: os.stat_result) -> bool:
        if self.uid == 0:
            return True
        if entry.st_uid == self.uid:
            return bool(entry.st_mode & stat.S_IXUSR)
        if entry.st_gid == self.gid or entry.st_gid in self.groups:
            return bool(entry.st_mode & stat.S_IXGRP)
        return bool(entry.st_mode & stat.S_IXOTH)


def account_named(name: str) -> Account:
    """Another account than the agent's; raises KeyError where this host has none of that name."""
    entry = pwd.getpwnam(name)
    return _account(entry, os.getgrouplist(name, entry.pw_gid), switches=True)


def own_account() -> Account:
    """The account that the agent itself runs as."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:  # a number without a name, as in a container
        home = os.environ.get("HOME") or "/"
        numbers = (os.geteuid(), os.getegid())
        entry = pwd.struct_passwd((str(numbers[0]), "x", *numbers, "", home, "/bin/sh"))
    return _account(entry, os.getgroups(), switches=False)


def _account(entry: pwd.struct_passwd, groups: Sequence[int], *, switches: bool) -> Account:
    return Account(
        name=entry.pw_name,
        home=entry.pw_dir or "/",
        shell=entry.pw_shell or "/bin/sh",
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(groups),
        switches=switches,
    )
