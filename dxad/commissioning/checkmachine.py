"""Whether this machine can run dxad: its clock, disk, memory, Python, runtime, and unit."""

import errno
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from dxad.bundle.interpreter import runtime
from dxad.commissioning.checkup import Finding, failed, fine, warned
from dxad.config import Config
from dxad.runtime.clock import Clock
from dxad.runtime.kerneltime import kernel_time
from dxad.sizes import memory

__all__ = [
    "clock", "disk", "flash", "memory_need", "python", "sync_rate", "tflite", "unit", "userland",
]  # fmt: skip

_MIB: Final = 2**20
_PROCESS: Final = 110 * _MIB
"""What dxad takes besides its buffers, with all protocols."""
_SPARE: Final = 64 * _MIB
"""Of a disk, beside the outbox: models, state, logs."""
_REFUSED: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""By a disk, whoever asks."""
_SYNCS: Final = 12
_SLOW_SYNC_S: Final = 0.1
_OFF_MOST_US: Final = 1_000_000
_YEAR_2025_S: Final = 1_735_689_600
_UNITS: Final = (
    "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system", "/lib/systemd/system",
)  # fmt: skip
_PACKAGED: Final = "/etc/dxad/dxad.toml"


def clock(time: Clock) -> Iterable[Finding]:
    """Whether the kernel says that the clock is synchronised, without asking it to do anything."""
    now_s = time.utc(time.now()) / 1e9
    if now_s < _YEAR_2025_S:
        told = "it stands years back: certificates and events would be wrong"
        yield failed("clock", "system", told, "set it: timedatectl set-ntp true, or a battery for its clock")
        return
    mend = "timedatectl set-ntp true, and let NTP (port 123/udp) out; without any, PTP or a GPS"
    try:
        found = kernel_time()
    except OSError as error:
        yield warned("clock", "system", f"cannot be asked: {error.strerror}", mend)
        return
    if not found.synchronised:
        yield warned("clock", "system", "is not synchronised: events may have a wrong time", mend)
    elif found.off_most_us > _OFF_MOST_US:
        yield warned("clock", "system", f"may be off by {found.off_most_us / 1e6:.1f} s", mend)
    else:
        yield fine("clock", "system", f"synchronised, off by {found.off_most_us / 1000:.0f} ms at most")


def disk(state_dir: Path, outbox_bytes: int) -> Iterable[Finding]:
    """Room for the outbox, and whether anything can be written."""
    place = _existing(state_dir)
    try:
        found = os.statvfs(place)
    except OSError as error:
        yield failed("disk", str(place), f"{error.strerror}", "see whether it is mounted")
        return
    if found.f_flag & os.ST_RDONLY:
        told = "the file system is read-only"
        yield failed("disk", str(place), told, "mount -o remount,rw; a card that fell to it may be worn out")
        return
    free, need = found.f_bavail * found.f_frsize, outbox_bytes + _SPARE
    told = f"{free / _MIB:,.0f} MiB free; the outbox may take {outbox_bytes / _MIB:,.0f}"
    if free < _SPARE:
        yield failed("disk", str(place), told, "make room, or move state_dir to another disk")
    elif free < need:
        yield warned("disk", str(place), told, "make room, or set outbox.max_size lower")
    else:
        yield fine("disk", str(place), told)
    if found.f_files and found.f_favail * 20 < found.f_files:
        told = f"{found.f_favail:,} of {found.f_files:,} inodes are left"
        yield warned("disk", str(place), told, "many small files fill it: remove some")


def sync_rate(state_dir: Path, time: Clock) -> Iterable[Finding]:
    """How long the disk takes to have something for sure: by a file without a name, which is gone at once."""
    place = _existing(state_dir)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            begin = time.now()
            for _ in range(_SYNCS):
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            each_s = (time.now() - begin) / 1e9 / _SYNCS
    except OSError as error:
        if error.errno in _REFUSED:
            told = f"nothing can be written: {error.strerror}"
            yield failed("disk", str(place), told, "make room, or move state_dir to another disk")
        else:
            told = f"cannot be written by this user: {error.strerror}"
            yield warned("disk", str(place), told, "run doctor as the user dxad, or as root, to try it")
        return
    told = f"{each_s * 1000:.0f} ms for a durable write"
    if each_s > _SLOW_SYNC_S:
        mend = 'profile = "sd_card" has fewer of them; or another disk for state_dir'
        yield warned("disk", str(place), told, mend)
    else:
        yield fine("disk", str(place), told)


def flash(state_dir: Path, profile: str) -> Iterable[Finding]:
    """Whether the state is on a memory card, which wears out."""
    place = _existing(state_dir)
    kind = _card(place.stat().st_dev)
    if kind is None:
        return
    told = f"on {kind}"
    if kind == "an SD card" and profile != "sd_card":
        yield warned("disk", str(place), told, 'profile = "sd_card" writes a fifth as often')
    else:
        yield fine("disk", str(place), told)


def _card(device: int) -> str | None:
    """`an SD card`, `eMMC`, or None for other disks."""
    real = os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if "/mmcblk" not in real:
        return None
    for folder in Path(real).parents:
        kind = folder / "device" / "type"
        if kind.is_file():
            return "an SD card" if kind.read_text().strip() == "SD" else "eMMC"
    return "an SD card"


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())


def memory_need(config: Config) -> Iterable[Finding]:
    """Whether `memory_max` is enough, and there is as much."""
    sizes = memory(config)
    need = sum(sizes.values())
    told = f"the buffers need {need / _MIB:.0f} MiB of {config.memory_max / _MIB:.0f}"
    if need > config.memory_max:
        largest = max(sizes, key=lambda name: sizes[name])
        yield failed("memory", "memory_max", f"{told}; the largest is {largest}", "raise it, or `keep` less")
    else:
        yield fine("memory", "memory_max", told)
    available = _available()
    if available is None:
        return
    told = f"{available / _MIB:,.0f} MiB free; dxad may take {(need + _PROCESS) / _MIB:.0f}"
    if available < need + _PROCESS:
        yield warned("memory", "machine", told, "stop something else, or `keep` less in the sources")
    else:
        yield fine("memory", "machine", told)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def python() -> Iterable[Finding]:
    """Its version, and numpy's beside an old runtime."""
    told = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield warned("python", "version", told, "dxad is tried on 3.11, 3.12 and 3.13")
    else:
        yield fine("python", "version", told)
    numpy = _version("numpy")
    if runtime().startswith("tflite-runtime") and numpy.split(".")[0] not in {"", "0", "1"}:
        told = f"numpy {numpy} with {runtime()}, which dies of it"
        yield failed("python", "numpy", told, 'pip install "numpy<2", or dxad[litert]')


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def tflite(needed: Sequence[str]) -> Iterable[Finding]:
    """Whether there is a runtime for models; `needed` by which pipelines."""
    found = runtime()
    if found:
        yield fine("runtime", "TensorFlow Lite", found)
    elif needed:
        told = f"is not installed; {', '.join(needed)} cannot score"
        mend = "pip install dxad[litert]; on 32-bit ARM, Python 3.11 has one"
        yield failed("runtime", "TensorFlow Lite", told, mend)
    else:
        yield fine("runtime", "TensorFlow Lite", "is not installed, and nothing needs it")


def userland() -> Iterable[Finding]:
    """Whether programs have 64 bits where the kernel has."""
    bits, machine = 8 * struct.calcsize("P"), platform.machine()
    if bits == 32 and machine in {"aarch64", "x86_64"}:
        told = f"32-bit programs on a 64-bit kernel ({machine})"
        mend = "a 64-bit system image is faster, and has wheels for more of what models need"
        yield warned("userland", machine, told, mend)
    else:
        yield fine("userland", machine, f"{bits}-bit")


def unit(config: Path, folders: Sequence[str] = _UNITS) -> Iterable[Finding]:
    """Whether systemd starts dxad, and with this configuration."""
    found = [each for folder in folders if (each := Path(folder) / "dxad.service").is_file()]
    if not found:
        mend = "install systemd/dxad.service and dxad.sysusers, then systemctl enable --now dxad"
        yield warned("unit", "dxad.service", "is not installed: nothing starts dxad after a power cut", mend)
        return
    try:
        text = found[0].read_text()
    except OSError as error:
        yield warned("unit", str(found[0]), f"{error.strerror}", "run doctor as root")
        return
    starts = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    if starts and str(config.absolute()) not in starts[-1]:
        told = f"starts another configuration: {starts[-1].removeprefix('ExecStart=')}"
        yield warned("unit", str(found[0]), told, f"edit ExecStart=, or move {config} to {_PACKAGED}")
    elif not list(Path(folders[0]).glob("*.wants/dxad.service")):
        yield warned("unit", str(found[0]), "is not enabled", "systemctl enable dxad")
    else:
        yield fine("unit", str(found[0]), "is enabled, with this configuration")
