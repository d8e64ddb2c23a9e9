"""The layers of the sandbox: what a process takes from itself before it runs the program of a stranger.

`close_in` is for a server, once: a view of the machine with nothing but the folders that Python and Manim need, no
network, no other process, no way back to root. `fork_alone`, `isolate` and `confine` are for each run: process numbers
and a work folder of its own in memory, no rights, limits, Landlock. Only system calls; Linux alone has them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SCENE = "/scene"  # the one folder that a program may write to; gone with its process
KEPT = "/kept"  # what the server shows to all programs
_DISK, _SHELF = "size=256m,mode=0700", "size=64m,mode=0700"
NOBODY = 65534
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
# What programs, libraries, fonts and TeX need. Of /etc only what they read: the rest tells about the machine.
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"),
    *("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime", "/etc/texmf", "/etc/mime.types"),
    *("/var/cache/fontconfig", "/var/lib/texmf", "/var/lib/tex-common"),
)
_NEW = {"mounts": 0x20000, "host name": 0x4000000, "ipc": 0x8000000, "user": 0x10000000}
_NEW |= {"processes": 0x20000000, "network": 0x40000000}
_APART = ("user", "mounts", "network", "host name", "processes")
_READ_ONLY, _NO_SUID, _NO_DEVICES, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 0x1000, 0x4000, 0x40000
_AT_RECURSIVE = 0x8000
_DETACH = 2
_MOUNT_SETATTR, _CREATE_RULES, _ADD_RULE, _RESTRICT_SELF = 442, 444, 445, 446  # the same on every architecture
_DIE_WITH_PARENT, _DUMPABLE, _NO_NEW_RIGHTS = 1, 4, 38
_CAPABILITIES_3 = 0x20080522
# Rights over files in the order in which versions of Landlock brought them.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_RUN, _READ, _LIST = 1, 4, 8
_OF_A_FILE = 1 | 2 | 4 | 1 << 14 | 1 << 15


class Limits(NamedTuple):
    """What one run may use; the processor's time is the verdict, the clock only catches what sleeps."""

    cpu_s: int
    memory_mb: int
    file_mb: int = 64
    processes: int = 64
    files: int = 256

    @property
    def wall_s(self) -> int:
        return 4 * self.cpu_s


def close_in(readable: list[str]) -> int:
    """Leave the machine behind for good. Returns in a new process; the old one only waits for it.

    The number is the open file that `fork_alone` needs.
    """
    proc = os.open("/proc", os.O_RDONLY)  # soon out of sight
    if os.geteuid() == 0:
        # Only real root may show others a Python that lies in root's own folder, so the view comes first.
        _unshare("mounts")
        _see_only(readable)
        drop_root()
        _become_apart(proc)
    else:
        _become_apart(proc)
        _see_only(readable)
    _mount("tmpfs", SCENE, "tmpfs", _NO_SUID | _NO_DEVICES, _DISK)  # Manim writes files even where it only warms up
    os.chdir(SCENE)
    if child := os.fork():
        os.closerange(0, 1 << 16)  # whoever listens to the server must hear when it is gone
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 127)
    _libc().prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)
    own = os.open("self/ns/pid", os.O_RDONLY, dir_fd=proc)
    os.close(proc)
    return own


def open_shelf() -> None:
    """In the server, while no program runs: what is in KEPT when `close_shelf` comes, all later ones can read."""
    _mount("tmpfs", KEPT, "tmpfs", _NO_SUID | _NO_DEVICES, _SHELF)


def close_shelf() -> None:
    """Nobody may change it any more."""
    _set_flags(KEPT, _READ_ONLY, recursive=False)


def fork_alone(own: int) -> int:
    """A fork that is the first of its own processes: it sees no other, and all that it starts ends with it."""
    _unshare("processes")
    if child := os.fork():
        _check(_libc().setns(own, _NEW["processes"]), "setns")  # so that the next one can have its own as well
    return child


def isolate() -> None:
    """In the child: an empty folder in memory, which nobody else sees."""
    _unshare("ipc", "mounts")
    _mount("tmpfs", SCENE, "tmpfs", _NO_SUID | _NO_DEVICES, _DISK)


def confine(limits: Limits, readable: list[str], writable: list[str]) -> None:
    """In the child: no rights, no new ones, limits, and Landlock where the kernel has it."""
    _libc().prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)
    _libc().prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0)
    _give_up_rights()
    _limit(limits)
    _landlock(readable, writable)


def drop_root() -> None:
    """Root ignores some limits and owns too much: go on as nobody."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _libc().prctl(_DUMPABLE, 1, 0, 0, 0)  # without it /proc/self belongs to root, and no map can be written


def landlock_version() -> int:
    """0 where the kernel has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULES, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def needed_folders() -> list[str]:
    """What must stay readable: the system's programs and fonts, and everything this Python is made of."""
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if "-packages" in path)]
    return [
        path for path in (*_SYSTEM, *_DEVICES, *dict.fromkeys(map(os.path.abspath, python))) if os.path.lexists(path)
    ]


def _see_only(readable: list[str]) -> None:
    """A root folder that holds these paths, all read-only, and the empty folder for work."""
    os.umask(0o022)
    sources = {path: _open(path) for path in _outermost(readable)}
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    root = "/sys"  # somewhere to stand for a moment; no source lies in it
    _mount("tmpfs", root, "tmpfs", _NO_SUID | _NO_DEVICES, "size=4m,mode=0755")
    for path, source in sources.items():
        _show(source, path, root + path)
    for folder in (SCENE, KEPT):
        Path(root + folder).mkdir()
    os.chdir(root)
    _set_flags(".", _READ_ONLY, recursive=False)
    _check(_libc().pivot_root(b".", b"."), "pivot_root")
    _check(_libc().umount2(b".", _DETACH), "umount")
    os.chdir("/")
    for source in sources.values():
        os.close(source)


def _outermost(paths: list[str]) -> list[str]:
    """Each path, and where it leads; none that lies in another."""
    wanted = sorted({each for path in paths for each in (path, os.path.realpath(path))})
    kept: list[str] = []
    for path in wanted:
        inside = any(path.startswith(above + "/") and not Path(above).is_symlink() for above in kept)
        if not inside:
            kept.append(path)
    return kept


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def _show(source: int, path: str, target: str) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    kind = os.fstat(source).st_mode
    if stat.S_ISLNK(kind):
        Path(target).symlink_to(os.readlink("", dir_fd=source))
        return
    if stat.S_ISDIR(kind):
        Path(target).mkdir(exist_ok=True)
    else:
        Path(target).touch()
    _mount(f"/proc/self/fd/{source}", target, None, _BIND | _RECURSIVE)
    _set_flags(target, _READ_ONLY | _NO_SUID | (0 if path in _DEVICES else _NO_DEVICES), recursive=True)


def _unshare(*kinds: str) -> None:
    _check(_libc().unshare(sum(_NEW[kind] for kind in kinds)), f"namespaces ({', '.join(kinds)})")


def _become_apart(proc: int) -> None:
    """Namespaces of our own, with the same user and group; `proc` is open, because it may be out of sight by now."""
    user, group = os.getuid(), os.getgid()
    _unshare(*_APART)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        os.write(file, text.encode())
        os.close(file)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, options)]
    done = _libc().mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    _check(done, f"mount {target}")


def _set_flags(target: str, flags: int, *, recursive: bool) -> None:
    wish = struct.pack("=QQQQ", flags, 0, 0, 0)
    where = ctypes.c_int(-100), target.encode(), ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    _check(_libc().syscall(_MOUNT_SETATTR, *where, wish, ctypes.c_size_t(len(wish))), f"mount_setattr {target}")


def _give_up_rights() -> None:
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    _check(_libc().capset(header, struct.pack("=6I", *[0] * 6)), "capset")


def _limit(limits: Limits) -> None:
    megabyte = 1 << 20
    for kind, value in (
        (resource.RLIMIT_CPU, 2 * limits.cpu_s + 1),  # the server is more exact; this is for what it starts
        (resource.RLIMIT_AS, limits.memory_mb * megabyte),
        (resource.RLIMIT_FSIZE, limits.file_mb * megabyte),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _landlock(readable: list[str], writable: list[str]) -> None:
    """Files by folder; from version 4 no TCP, from version 6 no signals and sockets to processes outside."""
    version = landlock_version()
    if not version:
        return
    every = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    size = ctypes.c_size_t(len(attributes))
    rules = _check(_libc().syscall(_CREATE_RULES, attributes, size, ctypes.c_uint32(0)), "landlock")
    for rights, paths in ((_RUN | _READ | _LIST, readable), (every, writable)):
        for path in paths:
            _allow(rules, path, rights)
    _check(_libc().syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0)), "landlock")
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    with suppress(FileNotFoundError, PermissionError):  # what is not there or not ours needs no permission
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, folder)
        done = _libc().syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0))
        _check(done, f"landlock {path}")
        os.close(folder)


def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _check(done: int, what: str) -> int:
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(done)
