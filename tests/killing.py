"""Killing a process at each of the system calls by which it changes files, instead of at random moments."""

import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

CHANGING = ("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod")

Task = Callable[[], object]


def fork(task: Task) -> int:
    """Run a task in another process; its process id. The exit code is 0 if the task ended well.

    What other tests left in cycles is not collected there: onnxruntime's sessions would wait for threads that only
    this process has.
    """
    gc.freeze()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    gc.unfreeze()
    return child


def kills(task: Task) -> Iterator[str]:
    """Run a task in other processes, which die before their 1st, 2nd, 3rd, ... call that changes files, until one
    lives on; yields after each death the call that was not made any more.

    Such calls are: opening a file to write it, bringing it to the disk, renaming, removing, making directories.
    """
    number = 0
    while True:
        reader, writer = os.pipe()
        child = fork(lambda number=number, writer=writer: _run_and_die(task, number, writer))
        os.close(writer)
        with os.fdopen(reader) as file:
            call = file.read()
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0, f"the task failed on its own, status {status}"
            return
        yield call
        number += 1


def kills_while_writing(task: Task, sizes: list[int]) -> Iterator[int]:
    """Run a task in other processes, each of which dies when a file grows beyond one of these sizes, bytes."""
    for size in sizes:

        def limited(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            task()

        _, status = os.waitpid(fork(limited), 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ, f"nothing wrote {size} bytes"
        yield size


def _run_and_die(task: Task, number: int, writer: int) -> None:
    left = number

    def about_to(call: str) -> None:
        nonlocal left
        if left == 0:
            os.write(writer, call.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in CHANGING or (event == "open" and _writes(arguments)):
            about_to(f"{event} {arguments[0]!r}")

    def fsync(descriptor: int) -> None:
        about_to("os.fsync")
        original(descriptor)

    original, os.fsync = os.fsync, fsync
    sys.addaudithook(hook)  # for good, but this process ends with the task
    task()


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
