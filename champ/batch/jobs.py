"""What travels between the batch and its workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .plan import Task, result_node
from .workflow import Info, Workflow


@dataclass(frozen=True)
class Setup:
    """How a worker starts its server."""

    comfyui: Path
    base: Path  # whose models and custom nodes are used
    options: tuple[str, ...] = ()  # for ComfyUI
    threads: int | None = None  # of the processor
    silence: float = 900.0  # seconds without progress after which a row has failed


@dataclass(frozen=True)
class Recipe:
    """How rows are made."""

    workflow: Workflow
    savers: tuple[str, ...]  # the nodes that write files
    result: str | None  # the node whose files are shown and measured
    stage: str | None = None

    @classmethod
    def of(cls, workflow: Workflow, info: Info, stage: str | None = None) -> "Recipe":
        return cls(workflow, tuple(workflow.savers(info)), result_node(workflow, info), stage)


@dataclass(frozen=True)
class Make:
    """A row to be made."""

    task: Task
    recipe: Recipe
    attempt: Path  # a folder to be made, with all that belongs to the row

    @property
    def name(self) -> str:
        return self.task.name


@dataclass(frozen=True)
class Measure:
    """A row to be compared with its true clip."""

    name: str
    made: tuple[Path, ...]
    truth: Path
    truth_mask: Path | None
    protocol: str
    networks: tuple[str, ...]  # measures that need weights, of models/champ_metrics


Job = Make | Measure


@dataclass(frozen=True)
class Outcome:
    """What has become of a job; without a message it went well."""

    message: str = ""
    log: str = ""
    final: bool = False  # nothing would change if it was tried again
    full: bool = False  # the disk is
    scores: Mapping[str, float] = field(default_factory=dict)
