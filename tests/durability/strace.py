"""What a process did to the files of a folder, call by call, as strace saw it: with all bytes, in order.

Source: strace(1), of Debian's package `strace`. `-y` names the file of each descriptor as it is then, `-xx`
writes strings in hex, so that a line is easily taken apart.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.durability.load import MARKS

__all__ = ["Call", "available", "calls", "run"]

_TRACED: Final = (
    "openat,open,creat,write,pwrite64,pwritev,pwritev2,writev,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,rename,renameat,renameat2,unlink,unlinkat,link,linkat,copy_file_range,sendfile"
)
_LINE: Final = re.compile(rb"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_RESULT: Final = re.compile(rb"\) += (-?\d+|\?)")
_STRING: Final = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
_ON: Final = re.compile(rb"(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")
_DELETED: Final = " (deleted)"
_UNSEEN: Final = {
    "pwritev",
    "pwritev2",
    "writev",
    "link",
    "linkat",
    "copy_file_range",
    "sendfile",
    "truncate",
}
"""Ways to change a file that nobody here goes: should somebody begin to, the model has to learn them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One thing that was done to a file.

    `create`, `write` (offset, data), `resize` (offset is the size), `grow` (likewise, at least), `sync`,
    `failed sync`, `sync that was cut short`, `unlink`, `rename` (data is the new path), or `mark` (data is
    the line).
    """

    what: str
    path: str
    offset: int = 0
    data: bytes = b""


def available() -> str:
    """Why processes cannot be traced here; empty when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()[:200]}"


def run(command: str, output: Path, *, options: Sequence[str] = (), timeout_s: float) -> None:
    """Run a shell command under strace."""
    process = subprocess.Popen(
        ["strace", "-f", "-y", "-xx", "-s", "4194304", "--seccomp-bpf", "-o", str(output), "-e",
         f"trace={_TRACED}", *options, "sh", "-c", command],
        stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip
    try:
        assert process.wait(timeout_s) == 0, command
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def calls(output: Path, folder: Path) -> Iterator[Call]:
    """What was done in the folder, in order: a sync where it had ended, all else where it began."""
    inside = f"{folder}/"
    begun: dict[tuple[bytes, bytes], bytes] = {}
    with output.open("rb") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            process, resumed, name, rest = found.groups()
            if rest.endswith(b"<unfinished ...>"):
                assert name is not None
                begun[process, name] = rest
                if name.startswith((b"fsync", b"fdatasync", b"open")):
                    continue
            elif resumed is not None:
                name = resumed
                rest = begun.pop((process, name)) + rest
                if not name.startswith((b"fsync", b"fdatasync", b"open")):
                    continue
            yield from _call(name.decode(), rest, inside)
    for (_, name), rest in begun.items():  # a process was killed in it: nobody knows whether it was done
        assert not any(each.what == "write" for each in _call(name.decode(), rest, inside)), rest[:200]


def _call(name: str, rest: bytes, inside: str) -> Iterator[Call]:
    ended = list(_RESULT.finditer(rest))
    result = ended[-1].group(1) if ended else b"?"
    on = [_text(each) for each in _ON.findall(rest)]
    strings = _STRING.findall(rest)
    folder = inside.rstrip("/")
    if name in ("fsync", "fdatasync"):
        if on[0] == folder or on[0].startswith(inside):
            yield Call({b"0": "sync", b"?": "sync that was cut short"}.get(result, "failed sync"), on[0])
        return
    if result.startswith(b"-"):
        return
    if name in ("open", "openat", "creat", "unlink", "unlinkat", "rename", "renameat", "renameat2"):
        paths = [_text(each) for each in strings]
        if paths[0].startswith(inside):
            yield from _on_name(name, paths, rest)
    elif on and on[0].startswith(inside) and not on[0].endswith(_DELETED):
        yield _on_file(name, on[0], rest, strings, inside)


def _on_name(name: str, paths: Sequence[str], rest: bytes) -> Iterator[Call]:
    if name.startswith("unlink"):
        yield Call("unlink", paths[0])
    elif name.startswith("rename"):
        yield Call("rename", paths[0], data=paths[1].encode())
    else:
        if b"O_CREAT" in rest or name == "creat":
            yield Call("create", paths[0])
        if b"O_TRUNC" in rest:
            yield Call("resize", paths[0], 0)


def _on_file(name: str, path: str, rest: bytes, strings: list[bytes], inside: str) -> Call:
    assert name not in _UNSEEN, f"{name} on {path}"
    numbers = [
        int(each) for each in re.findall(rb", (\d+)(?=[,) ])", rest.split(b'"')[-1] if strings else rest)
    ]
    match name:
        case "write":
            assert path == inside + MARKS, f"write on {path}: at what place?"
            return Call("mark", path, data=_bytes(strings[0]))
        case "pwrite64":
            return Call("write", path, numbers[1], _bytes(strings[0])[: numbers[0]])
        case "ftruncate":
            return Call("resize", path, numbers[0])
        case "fallocate":
            if b"KEEP_SIZE" in rest:
                return Call("nothing", path)  # blocks are taken, and read as nothing
            return Call("grow", path, sum(numbers[-2:]))
        case _:
            assert name == "sync_file_range", name
            return Call("nothing", path)


def _bytes(hexed: bytes) -> bytes:
    return bytes.fromhex(hexed.replace(b"\\x", b"").decode())


def _text(hexed: bytes) -> str:
    return _bytes(hexed).decode()
