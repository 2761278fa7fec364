"""Files that travel with a job to workers that share no folder with the batch, and back."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .contents import files_of
from .jobs import Job, Make


@dataclass(frozen=True)
class Parcel:
    """A file with what belongs to it, or the files of a folder."""

    name: str
    files: tuple[tuple[str, bytes, int], ...]  # name as in `files_of`, contents, time of change


def pack(path: Path) -> Parcel:
    return Parcel(path.name, tuple((name, file.read_bytes(), file.stat().st_mtime_ns) for name, file in files_of(path)))


def unpack(parcel: Parcel, place: Path) -> None:
    """Puts a file or folder at a place that is not there yet. Files keep their times, by which they are known."""
    is_file = any(not name for name, *_ in parcel.files)
    if not parcel.files:
        place.mkdir(parents=True)
    for name, content, modified in parcel.files:
        file = (place.parent if is_file else place) / name if name else place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, ns=(modified, modified))


def paths_of(job: Job) -> list[Path]:
    """Returns the paths that a job reads."""
    if isinstance(job, Make):
        return list(dict.fromkeys(job.task.files.values()))
    truths = [job.truth, *([job.truth_mask] if job.truth_mask else [])]
    return list(dict.fromkeys([*job.made, *truths]))


def moved(job: Job, places: Mapping[Path, Path], attempt: Path) -> Job:
    """Returns the job with other paths for its files and its results."""
    if isinstance(job, Make):
        files = {point: places[path] for point, path in job.task.files.items()}
        return replace(job, task=replace(job.task, files=files), attempt=attempt)
    mask = places[job.truth_mask] if job.truth_mask else None
    return replace(job, made=tuple(places[path] for path in job.made), truth=places[job.truth], truth_mask=mask)
