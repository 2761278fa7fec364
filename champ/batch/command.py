"""The command line of a batch."""

import argparse
import contextlib
import fnmatch
import io
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..server import Failure
from . import pool as ray_pool
from . import report
from .folder import DONE, OTHER, BatchFolder
from .jobs import Recipe, Setup
from .order import Order
from .plan import Places, Task, for_stage, plan
from .pool import NotReady, Pool, Ready
from .progress import duration
from .run import Limits, Measuring, Run
from .table import read_table
from .workflow import STAGES, Info, Workflow, read_workflow

PACK = Path(__file__).parents[2]
MAPS_WORKFLOW = Path(__file__).with_name("maps.json")
NETWORKS = {"lpips": "LPIPS", "fid_vid": "FID-VID", "fvd": "FVD"}


def say(message: str) -> None:
    clear = f"\r{'':<100}\r" if sys.stdout.isatty() else ""
    print(f"{clear}[champ] {message}", flush=True)


def a_path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # which leaves ~name as it is where nobody is called so


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m champ.batch",
        description="Make all clips of a table: one row, one clip. What is done is not made again, so the same command "
        "goes on where it was stopped. Options behind -- go to ComfyUI.",
    )
    made.add_argument("table", type=a_path, metavar="TABLE", help="CSV, JSON lines or Parquet")
    made.add_argument("--workflow", type=a_path, metavar="FILE", help="in API format; --stage maps has one of its own")
    made.add_argument("--out", type=a_path, metavar="FOLDER", required=True, help="for the results")
    what = made.add_argument_group("what is made")
    what.add_argument("--dry-run", action="store_true", help="check everything, tell what would be made, and end")
    what.add_argument("--limit", type=int, metavar="N", help="at most N of the rows that are not done")
    what.add_argument("--only", nargs="+", metavar="NAME", help="rows of these names, such as anna or 'anna_*'")
    what.add_argument("--redo", action="store_true", help="make rows again whose inputs or workflow have changed")
    what.add_argument("--stage", choices=list(STAGES), help="maps: only what leads to Save Guidance Maps, for training")
    what.add_argument("--measure", action="store_true", help="compare with the clips in the column `truth`")
    what.add_argument("--protocol", choices=["clean", "benchmark"], default="clean", help="as in Measure Result")
    for name, measure in NETWORKS.items():
        what.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=f"measure {measure}, too")
    where = made.add_argument_group("where it is made")
    where.add_argument("--comfyui", type=a_path, metavar="FOLDER", help="the same on all machines; or COMFYUI_PATH")
    where.add_argument("--base", type=a_path, metavar="FOLDER", help="of models and custom_nodes, if not ComfyUI's own")
    where.add_argument("--address", help="of a Ray cluster, or auto; without it Ray is started on this machine")
    where.add_argument("--ship", action="store_true", help="send pack and files to machines that share no folder")
    where.add_argument("--workers", type=int, metavar="N", help="at most N; one for each graphics card, or by --cpus")
    where.add_argument("--cpus", type=int, metavar="N", help="cores for each worker; without cards: a whole machine's")
    where.add_argument("--silence", type=float, metavar="S", default=900, help="seconds without progress: failed (900)")
    where.add_argument("--keep-free", type=float, metavar="MB", default=500, help="of the disk of --out (500)")
    return made


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns our options, and those for ComfyUI."""
    argv = list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser().parse_args(argv[:split])
    for name in ("limit", "workers", "cpus", "silence"):
        if getattr(options, name) is not None and not getattr(options, name) >= 1:  # nor is NaN
            raise Failure(f"--{name} is {getattr(options, name)}: give 1 or more")
    if options.workflow is None and options.stage is None:
        raise Failure("give the workflow that is to be run with --workflow, in API format")
    if options.measure and options.stage:
        raise Failure("--measure compares clips with true ones, and --stage maps makes none: leave one of them out")
    if any(getattr(options, name) for name in NETWORKS) and not options.measure:
        raise Failure("--lpips, --fid-vid and --fvd say what is measured: give --measure, too")
    return options, argv[split + 1 :]


def find_comfyui(given: Path | None) -> Path:
    """Finds ComfyUI's folder: the one given, the one in which this pack is installed, or the one of dev.py."""
    named = given or os.environ.get("COMFYUI_PATH")
    places = [a_path(str(named))] if named else [PACK.parents[1], PACK / ".host" / "ComfyUI"]
    for place in places:
        if (place / "main.py").exists():
            return place.resolve()
    if named:
        raise Failure(f"{named} is not a ComfyUI folder: give the one with main.py in it")
    raise Failure("give ComfyUI's folder with --comfyui, the one with main.py in it")


@contextlib.contextmanager
def workers(options: argparse.Namespace, setup: Setup) -> Iterator[Pool]:
    ray_pool.connect(options.address, options.ship)
    try:
        share = ray_pool.choose_share(options.cpus)
        threads = None if share.gpus else share.cpus
        pool = Pool(Setup(setup.comfyui, setup.base, (*share.options, *setup.options), threads, setup.silence), share)
        pool.ship = options.ship
        if not pool.capacity():
            raise Failure(f"no machine has {share.cpus} cores for a worker: give fewer with --cpus")
        try:
            yield pool
        finally:
            pool.close()
    finally:
        ray_pool.disconnect()


def first_info(pool: Pool, tries: int = 3) -> Info:
    """Returns the nodes that the workers have, as the first worker that starts lists them."""
    while True:
        pool.fill(1)
        for event in pool.wait(1):
            if isinstance(event, Ready):
                return event.info
            tries -= 1
            if tries == 0:
                raise Failure(f"no worker starts: {event.message if isinstance(event, NotReady) else event}")


def main(argv: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file or console that has no letters of other languages
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that our servers end with us
    try:
        options, comfyui_options = parse(argv)
        return batch(options, comfyui_options)
    except Failure as failure:
        say(f"error: {failure}")
        return 1
    except OSError as error:  # of a path that was given, or of the disk
        say(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130


def batch(options: argparse.Namespace, comfyui_options: Sequence[str]) -> int:
    rows = read_table(options.table)
    workflow = for_stage(read_workflow(options.workflow or MAPS_WORKFLOW), options.stage)
    comfyui = find_comfyui(options.comfyui)
    base = (options.base or comfyui).resolve()
    setup = Setup(comfyui, base, tuple(comfyui_options), silence=options.silence)
    folder = BatchFolder(options.out.absolute())
    places = Places(options.table.absolute().parent, base / "input")
    with contextlib.nullcontext() if options.dry_run else folder.held():
        say("starting a worker")
        with workers(options, setup) as pool:
            info = first_info(pool)
            tasks = plan(rows, workflow, info, places, options.measure)
            left, done = choose(tasks, workflow, folder, options)
            if options.dry_run:
                tell(left[: options.limit], done, workflow, min(pool.capacity(), options.workers or len(tasks)))
                return 0
            limits = Limits(options.workers or len(tasks), options.keep_free * 1e6)
            run = Run(folder, Recipe.of(workflow, info, options.stage), pool, say, measuring(options), limits)
            names = [task.name for task in tasks]
            return make(run, left, done, names, options.table.stem, options.limit)


def measuring(options: argparse.Namespace) -> Measuring | None:
    networks = tuple(measure for name, measure in NETWORKS.items() if getattr(options, name))
    return Measuring(options.protocol, networks) if options.measure else None


def choose(
    tasks: Sequence[Task], workflow: Workflow, folder: BatchFolder, options: argparse.Namespace
) -> tuple[list[Task], list[Task]]:
    """Returns the rows that are not done, and those that are."""
    if options.only:
        chosen = [task for task in tasks if any(fnmatch.fnmatchcase(task.name, name) for name in options.only)]
        if not chosen:
            raise Failure(f"no row has a name like {' or '.join(options.only)}")
    else:
        chosen = list(tasks)
    states = {task.name: folder.state(task, workflow.digest, _known(task, workflow)) for task in chosen}
    other = [name for name, state in states.items() if state == OTHER]
    if other and not options.redo:
        named = ", ".join(other[:5]) + (", ..." if len(other) > 5 else "")
        raise Failure(
            f"{len(other)} rows in {folder.folder} were made with other inputs or another workflow ({named}): choose "
            "another --out, or make them again with --redo"
        )
    left = [task for task in chosen if states[task.name] != DONE]
    return left, [task for task in chosen if states[task.name] == DONE]


def _known(task: Task, workflow: Workflow) -> dict[str, dict]:
    """Returns a row's values under the names that manifests use for inputs."""
    return {
        "values": {workflow.known_by(point): value for point, value in task.values.items()},
        "files": {workflow.known_by(point): path for point, path in task.files.items()},
    }


def tell(left: Sequence[Task], done: Sequence[Task], workflow: Workflow, count: int) -> None:
    say(f"the table has no errors: {len(left)} rows would be made, {len(done)} are done")
    order = Order(left, workflow)
    if order.points:
        shared = ", then ".join(map(workflow.known_by, order.points))
        say(f"rows that share {shared} would go to the same worker")
    say(f"there is room for {count} {'worker' if count == 1 else 'workers'}")


def make(
    run: Run, left: Sequence[Task], done: Sequence[Task], names: Sequence[str], title: str, limit: int | None = None
) -> int:
    started = time.monotonic()
    waiting = {task.name for task in left}
    left = left[:limit]
    say(f"{len(left)} rows to make, {len(done)} done before")

    def write_report() -> list[dict]:
        rows = report.overview(run.folder, names, waiting - run.made_rows)
        try:
            report.write(run.folder, rows, title)
        except ValueError as error:  # on Windows a spreadsheet that shows the old one keeps it: the rows go on
            say(f"the report: {error}")
        return rows

    try:
        run.go(left, done, write_report)
    finally:
        rows = write_report()
        for line in report.summary(rows):
            say(line)
    say(f"this took {duration(time.monotonic() - started)}; see {run.folder.folder / 'report.html'}")
    return 1 if any(row["state"] == "failed" for row in rows) else 0
