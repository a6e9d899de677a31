"""Runs one program and ends it when the process that asked for it is gone, however that process ended.

Run as a plain file, with nothing but the standard library: `python -S guard.py GRACE_S -- PROGRAM ARG…`.

The starter holds the other end of this process's standard input and never writes to it. End of file therefore means
that the starter has stopped or died (the kernel closes the pipe even after SIGKILL), and the program is asked to end
and, after GRACE_S seconds, killed. Unlike PR_SET_PDEATHSIG in the program itself this does not depend on which thread
of the starter started it, works where there is no prctl, and lets the program close its files. The first line on
standard output is the program's process id; the exit code is the program's, or 128 + n when signal n ended it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
GUARD_LINUX = sys.platform == "linux"


def _end_with_guard(guard_pid: int) -> Callable[[], None]:
    """What the program does before it starts, so that killing the guard itself leaves no orphan either (Linux only)."""
    libc = ctypes.CDLL(None, use_errno=True)

    def arm() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard_pid:
            os.kill(os.getpid(), signal.SIGKILL)

    return arm


def main(arguments: list[str]) -> int:
    """Start the program, report its id, wait for its end or the starter's."""
    grace_s, separator, *argv = arguments
    if separator != "--" or not argv:
        raise SystemExit("usage: guard.py GRACE_S -- PROGRAM [ARG…]")
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    # The program's end and a request to stop both have to interrupt the wait below; the handlers do nothing else.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    program = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=_end_with_guard(os.getpid()) if GUARD_LINUX else None,  # noqa: PLW1509 - there is one thread
    )
    os.write(1, b"%d\n" % program.pid)
    while program.poll() is None:
        readable, _, _ = select.select([0, wake_read], [], [])
        if 0 in readable and not os.read(0, 1):
            return _finish(program, float(grace_s))
        if wake_read in readable and set(os.read(wake_read, 64)) & {signal.SIGTERM, signal.SIGINT}:
            return _finish(program, float(grace_s))
    return _code(program.returncode)


def _finish(program: subprocess.Popen[bytes], grace_s: float) -> int:
    program.terminate()
    try:
        program.wait(grace_s)
    except subprocess.TimeoutExpired:
        program.kill()
    return _code(program.wait())


def _code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
