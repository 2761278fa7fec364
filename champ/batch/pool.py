"""The workers, as Ray actors: all that the batch has to do with Ray."""

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..server import Failure
from .folder import is_full
from .jobs import Job, Make, Outcome, Setup
from .shipping import Parcel, moved, pack, paths_of, unpack

PACK = Path(__file__).parents[2]
NOT_SHIPPED = [".git", ".venv", ".host", "output", "tests", "docs", "bench", "tools", "**/__pycache__"]
KEPT_PARCELS = 32  # files in Ray's object store that further rows may want
CLOSING = 10.0  # seconds
ANSWERING = 5.0  # seconds


@dataclass(frozen=True)
class Ready:
    worker: int
    info: Mapping[str, dict]
    about: Mapping[str, str]


@dataclass(frozen=True)
class NotReady:
    worker: int
    message: str


@dataclass(frozen=True)
class Finished:
    worker: int
    job: Job
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """A worker has ended, perhaps with the whole node."""

    worker: int
    job: Job | None
    node_gone: bool
    message: str


Event = Ready | NotReady | Finished | Lost


@dataclass(frozen=True)
class Share:
    """What a worker takes of a node."""

    cpus: int
    gpus: int

    @property
    def options(self) -> tuple[str, ...]:
        """Returns the device options for ComfyUI. Ray does not count Apple's graphics, which ComfyUI finds by
        itself."""
        return () if self.gpus or sys.platform == "darwin" else ("--cpu",)


class RayActor:
    """A worker on some node. Its methods may run at the same time, so that it can be closed while it makes a row."""

    def __init__(self, setup: Setup) -> None:
        from .worker import Worker  # here, because the batch itself need not have what workers need

        self.worker = Worker(setup)
        self.shipped: dict[Path, Path] = {}

    def start(self) -> tuple[Mapping, Mapping] | str:
        try:
            self.worker.start()
            return self.worker.info(), {**self.worker.about(), "node": _ray().get_runtime_context().get_node_id()}
        except (Failure, OSError) as error:
            return str(error)

    def run(self, job: Job) -> Outcome:
        try:
            return self.worker.run(job)
        except (Failure, OSError):
            # Its server does not start again: this worker ends, before it fails at row after row.
            self.worker.close()
            os._exit(1)

    def run_shipped(self, job: Job, parcels: Mapping[Path, object]) -> tuple[Outcome, Parcel | None]:
        """Runs a job whose files are sent along: `parcels` are references into Ray's object store."""
        try:
            with tempfile.TemporaryDirectory(dir=self.worker.base) as made:
                here = moved(job, self.unpack(parcels), Path(made) / job.name)
                outcome = self.run(here)
                if isinstance(here, Make) and not outcome.message:
                    return outcome, pack(here.attempt)
                return outcome, None
        except OSError as error:  # of a disk that is full, above all
            return self.worker.failed(error, job), None

    def unpack(self, parcels: Mapping[Path, object]) -> dict[Path, Path]:
        """Where the files lie here; those of the row before stay, if this row has them, too."""
        folder = self.worker.base / "shipped"
        for path in [path for path in self.shipped if path not in parcels]:
            shutil.rmtree(self.shipped.pop(path).parent, ignore_errors=True)
        for path, reference in parcels.items():
            if path not in self.shipped:
                parcel = _ray().get(reference)
                place = folder / secrets.token_hex(8) / parcel.name
                unpack(parcel, place)
                self.shipped[path] = place
        return dict(self.shipped)

    def answer(self) -> None:
        pass

    def close(self) -> None:
        self.worker.close()


@dataclass
class Handle:
    actor: Any
    node: str | None = None  # known when it is ready
    job: Job | None = None


class Pool:
    """Starts workers, gives them jobs, and tells what has become of them."""

    def __init__(self, setup: Setup, share: Share, ship: bool = False) -> None:
        self.share, self.ship = share, ship
        self.setup = setup
        self.workers: dict[int, Handle] = {}
        self.waiting: dict[object, int] = {}  # reference -> worker
        self.parcels: OrderedDict[Path, object] = OrderedDict()
        self.unsent: list[Event] = []  # jobs whose files cannot be read
        self.count = 0

    def capacity(self) -> int:
        """Returns for how many workers there is room."""
        return sum(_fits(node, self.share) for node in nodes())

    def fill(self, wanted: int) -> None:
        """Starts workers until there are as many as wanted, or as there is room for."""
        for _ in range(min(wanted, self.capacity()) - len(self.workers)):
            options = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus, "max_concurrency": 2}
            actor = _ray().remote(RayActor).options(**options).remote(self.setup)
            self.count += 1
            self.workers[self.count] = Handle(actor)
            self.waiting[actor.start.remote()] = self.count

    def idle(self) -> list[int]:
        return [number for number, handle in self.workers.items() if handle.node and handle.job is None]

    def busy(self) -> int:
        return sum(handle.job is not None for handle in self.workers.values())

    def alive(self) -> Collection[int]:
        """Returns the workers that are running or starting."""
        return self.workers.keys()

    def give(self, worker: int, job: Job) -> None:
        handle = self.workers[worker]
        if self.ship:
            try:
                parcels = {path: self._parcel(path) for path in paths_of(job)}
            except OSError as error:
                self.unsent.append(Finished(worker, job, Outcome(f"its files cannot be sent: {error}")))
                return
            reference = handle.actor.run_shipped.remote(job, parcels)
        else:
            reference = handle.actor.run.remote(job)
        handle.job = job
        self.waiting[reference] = worker

    def _parcel(self, path: Path) -> object:
        if path not in self.parcels:
            self.parcels[path] = _ray().put(pack(path))
        self.parcels.move_to_end(path)
        while len(self.parcels) > KEPT_PARCELS:
            self.parcels.popitem(last=False)
        return self.parcels[path]

    def wait(self, seconds: float) -> list[Event]:
        if self.unsent:
            events, self.unsent = self.unsent, []
            return events
        if not self.waiting:
            time.sleep(seconds)
            return []
        ready, _ = _ray().wait(list(self.waiting), num_returns=len(self.waiting), timeout=0)
        if not ready:
            ready, _ = _ray().wait(list(self.waiting), num_returns=1, timeout=seconds)
        return [self._event(reference, self.waiting.pop(reference)) for reference in ready]

    def _event(self, reference: object, worker: int) -> Event:
        handle = self.workers[worker]
        try:
            answer = _ray().get(reference)
        except _ray().exceptions.RayTaskError as error:  # an error in the worker's code, which lives on
            answer = str(error).strip().splitlines()[-1]
            if handle.node is not None:
                answer = (Outcome(answer, str(error)), None) if self.ship else Outcome(answer, str(error))
        except _ray().exceptions.RayError as error:
            return self._lost(worker, error)
        if handle.node is None:
            if isinstance(answer, str):
                self._drop(worker)
                return NotReady(worker, answer)
            info, about = answer
            handle.node = about["node"]
            return Ready(worker, info, about)
        job, handle.job = handle.job, None
        assert job is not None
        outcome = self._arrived(job, *answer) if self.ship else answer
        return Finished(worker, job, outcome)

    def _arrived(self, job: Job, outcome: Outcome, parcel: Parcel | None) -> Outcome:
        """Lays what was sent back where the row's results are expected."""
        if parcel is not None and isinstance(job, Make):
            try:
                unpack(parcel, job.attempt)
            except OSError as error:
                return Outcome(str(error), full=is_full(error))
        return outcome

    def _lost(self, worker: int, error: Exception) -> Event:
        """A worker that has ended on a node that lives has itself to blame; all others were left by their nodes. That a
        node has gone, Ray knows after half a minute; that a worker does not answer, at once."""
        ray = _ray()
        handle = self.workers[worker]
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            try:
                ray.get(handle.actor.answer.remote(), timeout=ANSWERING)
            except ray.exceptions.RayError as later:
                error = later
        alive = {node["NodeID"] for node in nodes()}
        died = isinstance(error, ray.exceptions.ActorDiedError) and (handle.node is None or handle.node in alive)
        self._drop(worker)
        return Lost(worker, handle.job, not died, str(error).strip().splitlines()[0])

    def _drop(self, worker: int) -> None:
        with suppress(Exception):
            _ray().kill(self.workers[worker].actor)
        del self.workers[worker]

    def close(self) -> None:
        """Ends the servers and removes their folders, also of those that are at work."""
        closing = [handle.actor.close.remote() for handle in self.workers.values()]
        with suppress(Exception):
            _ray().wait(closing, num_returns=len(closing), timeout=CLOSING)
        for worker in list(self.workers):
            self._drop(worker)
        self.waiting.clear()


def _ray():
    try:
        import ray
    except ImportError:
        raise Failure("batches run on Ray, which is not installed: pip install ray") from None
    return ray


def connect(address: str | None, ship: bool) -> None:
    """Joins a cluster, or starts Ray on this machine alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers are what the machine is for
    if address is None:
        # Ray listens on the network. Only who knows this secret, our workers, may talk to it. Ray reads both when it is
        # imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Ray would start a process for each core, before it knows of a worker.
        os.environ.setdefault("RAY_enable_worker_prestart", "0")
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    ray = _ray()
    environment: dict[str, object] = {"env_vars": {"PYTHONPATH": os.pathsep.join(_search_path())}}
    if ship:
        environment = {"working_dir": str(PACK), "excludes": NOT_SHIPPED}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "runtime_env": environment}
    where = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    for last in (False, True):
        try:
            ray.init(**where, **options)
            return
        except Exception as error:  # of many kinds, some of them plain exceptions
            why = str(error).strip().splitlines()[0].rstrip(".")
            if address is not None:
                raise Failure(f"the Ray cluster {address} cannot be joined: {why}") from error
            # Ray gives its processes half a minute, which may not be enough where others keep all cores busy.
            if last:
                raise Failure(f"Ray does not start here: {why}; if this machine is busy, try again later") from error


def disconnect() -> None:
    _ray().shutdown()


def _search_path() -> list[str]:
    return [str(PACK), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def nodes() -> list[dict]:
    return [node for node in _ray().nodes() if node["Alive"]]


def choose_share(cpus: int | None) -> Share:
    """One graphics card for each worker, where there is any in the cluster; else `cpus` cores, or a whole node's."""
    resources = [node["Resources"] for node in nodes()]
    cards = [one for one in resources if one.get("GPU", 0) >= 1]
    if cards:
        fair = min(int(one.get("CPU", 0) // one["GPU"]) for one in cards)
        return Share(cpus or max(1, fair), 1)
    cores = [int(one["CPU"]) for one in resources if one.get("CPU", 0) >= 1]
    if not cores:
        raise Failure("no node of the Ray cluster has a processor or a graphics card to give")
    return Share(cpus or min(cores), 0)


def _fits(node: dict, share: Share) -> int:
    resources = node["Resources"]
    by_cpus = int(resources.get("CPU", 0) // share.cpus)
    return min(by_cpus, int(resources.get("GPU", 0) // share.gpus)) if share.gpus else by_cpus
