"""All that is measured on a GPU, in at most nine minutes and without a network.

    python -m benchmarks.gpu --output=gpu_table --config=configs/polymnist.py --config.data.dir=DIR

Every part is a process of its own with a limit of its own, so that one that hangs or fails costs no other. A row is
printed and written to ``<output>/table.txt`` and ``<output>/rows.jsonl`` as soon as it is known. What else the
processes say is in ``<output>/log.txt``.

    kernels     against NumPy in float64
    resume      a training that is stopped and resumed, against one left alone; again with deterministic kernels
    peers       training steps of five networks in PyTorch, eager and compiled; all compile while nothing is timed
    steps       ours, the ratio to the better peer, and the share of the matrix peak
    runs        16 runs as one program against one run
    donation    time and memory of steps that may overwrite their state
    polymnist   MMVM on the data of ``--config`` for what is left of the time, and its coherence

``--config.data.dir`` holds the data set, or its raw files; without them the last part says so and is left out.
Needs the extra ``bench`` and one GPU; ``--toy`` rehearses everything on a CPU at toy size.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import tempfile
import time

from absl import app, flags
from ml_collections import config_flags

from benchmarks.gpu_parts import NETWORKS
from benchmarks.gpu_parts.table import Options, Table

_OUTPUT = flags.DEFINE_string("output", "gpu_table", "Folder of the table; rows are appended.")
_SECONDS = flags.DEFINE_float("seconds", 530.0, "For everything.")
_PARTS = flags.DEFINE_list("parts", [], "Which parts, in the order of the list; all if empty.")
_TOY = flags.DEFINE_bool("toy", False, "Toy sizes, on a CPU.")
_CONFIG = config_flags.DEFINE_config_file("config", "configs/polymnist.py", "What the last part trains.")

# Seconds that a part may take; the last one has what is left.
LIMITS = {"kernels": 60, "resume": 80, "deterministic": 80, "peers": 130, "steps": 170, "runs": 60, "donation": 60}
LAST, FOR_LAST = "polymnist", 200  # seconds that no other part takes from it
TOY_FACTOR = 10  # of the limits, since a CPU is slow even at toy size
FOR_TIMING = 16  # seconds of those of the peers, for each; the others are for compiling
MODULES = {"deterministic": "resume"}  # of parts that are another one under other settings
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the memory
    "TORCHINDUCTOR_COMPILE_THREADS": "4",
}


def main(argv):
    del argv
    table, wanted = Table(_OUTPUT.value), _PARTS.value or [*LIMITS, LAST]
    end = time.monotonic() + _SECONDS.value
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        begin = lambda name, what="": stack.enter_context(_Process(table, name, what, folder))
        peers = [begin("peers", what) for what in NETWORKS] if "peers" in wanted else []
        last = begin(LAST) if LAST in wanted else None  # reads its data meanwhile
        for name in wanted:
            left = end - time.monotonic() - (FOR_LAST if last and name != LAST else 0)
            limit = min(LIMITS.get(name, left) * (TOY_FACTOR if _TOY.value else 1), left)
            if limit < 5:
                table.add(name, "no time left")
            elif name == "peers":
                _time_peers(peers, limit)
            else:
                (last if name == LAST else begin(name)).finish(limit)


def _time_peers(peers: list["_Process"], seconds: float) -> None:
    """Lets one after the other be timed, once all have compiled or there is no more time for it."""
    share = FOR_TIMING / LIMITS["peers"] * seconds
    end = time.monotonic() + seconds
    ready = [process for process in peers if process.is_ready(end - len(peers) * share - time.monotonic())]
    for process in ready:
        process.finish(min(share, end - time.monotonic()))


class _Process:
    """A part in a process of its own: prepares at once, measures when it is told to."""

    def __init__(self, table: Table, name: str, what: str, folder: str):
        self._table, self._name, self._what = table, name, what
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = name, what, theirs, folder, _OUTPUT.value, _TOY.value, _CONFIG.value
        self._process = context.Process(target=_work, args=arguments)
        self._process.start()
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        """Ends the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()

    def is_ready(self, seconds: float) -> bool:
        """Waits so many seconds at most until the part has prepared, or has failed to; else ends it."""
        ready = self._pipe.poll(max(seconds, 0.0))
        if not ready:
            self._table.add(self._name, self._what, cut_off="while it prepared")
            self.__exit__()
        return ready

    def finish(self, seconds: float) -> None:
        """Lets the part measure for so many seconds at most."""
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._pipe.send(seconds)
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._table.add(self._name, self._what, cut_off=f"after {seconds:.0f} s")
        elif self._process.exitcode:
            self._table.add(self._name, self._what, failed="see log.txt")
        self.__exit__()
        self._table.add("seconds", f"{self._name} {self._what}", took=time.monotonic() - began)


def _work(name: str, what: str, pipe, folder: str, output: str, toy: bool, config) -> None:
    """Runs a part; before anything imports JAX or PyTorch, sets what they read."""
    os.setpgid(0, 0)
    log = os.open(os.path.join(output, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    os.environ.update(ENVIRONMENT | {"TMPDIR": folder})
    if toy or name == "peers":  # whose initial weights are ours
        os.environ["JAX_PLATFORMS"] = "cpu"
    if name == "deterministic":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"

    def wait() -> float:
        pipe.send("ready")
        return pipe.recv()

    module = importlib.import_module(f"benchmarks.gpu_parts.{MODULES.get(name, name)}")
    table = Table(output)
    if name != "peers" and not toy and importlib.import_module("jax").default_backend() == "cpu":
        table.add(name, "JAX finds no GPU; --toy rehearses on a CPU")
        return
    module.run(table, Options(name, what, toy, config, wait))


if __name__ == "__main__":
    app.run(main)
