"""Other processes: which there are, what they cost."""

import psutil


def titled(title: str, below: int | None = None) -> list[int]:
    """Ids of processes whose command line begins so, as Ray's workers write it; of one process' descendants only, if
    that is named."""
    found = []
    for process in psutil.process_iter() if below is None else psutil.Process(below).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(title):
                found.append(process.pid)
        except psutil.NoSuchProcess:  # it has ended meanwhile
            continue
    return found


def cpu_seconds(process: int | None = None) -> float:
    """Processor time so far, in user mode and in the system's; of this process, if none is named."""
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


def megabytes(process: int | None = None) -> float:
    """Resident memory; of this process, if none is named."""
    return psutil.Process(process).memory_info().rss / 1e6
