"""Reports on a batch's folder: results.csv, report.html and measures.md."""

import csv
import html
import io
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import quote

from ..metrics.means import mean_of_clips
from ..output import whole
from .folder import THUMBNAIL, BatchFolder

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; }
td, th { padding: .35rem .6rem; text-align: left; vertical-align: top; }
tr { border-top: 1px solid #ddd; } th { border: 0; } .number { text-align: right; white-space: nowrap; }
img { height: 120px; display: block; } .failed td { background: #fdecea; } .left td { color: #888; }
"""
NUMBERS = {"seconds": "seconds", "main_memory_mb": "memory, MB", "graphics_memory_mb": "graphics, MB"}  # shown as
FIXED = ("name", "state", "seconds", "main_memory_mb", "graphics_memory_mb", "worker", "made", "files", "message")


def overview(folder: BatchFolder, names: Sequence[str], waiting: Collection[str] = ()) -> list[dict]:
    """Makes a row of results.csv for each row of the table, from what is in the folder; of rows that wait to be made,
    there may be an older clip."""
    return [_row(folder, name, name in waiting) for name in names]


def _row(folder: BatchFolder, name: str, waits: bool) -> dict[str, object]:
    manifest, message = None if waits else folder.manifest(name), folder.message(name)
    row: dict[str, object] = {"name": name, "state": "failed" if message else "done" if manifest else "left"}
    if manifest and not message:  # a row that failed when it was made again may still have its older clip
        peak, measured = manifest["peak_memory"], folder.measures(name) or {}
        row |= {
            "seconds": manifest["seconds"],
            "main_memory_mb": _megabytes(peak["main"]),
            "graphics_memory_mb": _megabytes(peak["graphics"]),
            "worker": manifest["worker"]["host"],
            "made": manifest["made"],
            "files": len(manifest["files"]),
            **measured.get("scores", {}),
        }
        message = measured.get("problem", "")
    row["message"] = message.replace("\n", "; ")
    return row


def _megabytes(size: int | None) -> int | None:
    return None if size is None else round(size / 1e6)


def measures(rows: Sequence[Mapping]) -> list[dict[str, float]]:
    """Returns the scores of the measured rows."""
    found = ({name: value for name, value in row.items() if name not in FIXED} for row in rows)
    return [scores for scores in found if scores]


def write(folder: BatchFolder, rows: Sequence[Mapping], title: str) -> None:
    texts = {"results.csv": as_csv(rows), "report.html": as_html(folder, rows, title)}
    if scores := measures(rows):
        texts["measures.md"] = as_table(scores)
    for name, text in texts.items():
        with whole(folder.folder / name, replace=True) as made:
            made.write_text(text, encoding="utf-8", newline="")


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    names = dict.fromkeys([*FIXED[:-1], *(name for row in rows for name in row if name not in FIXED), "message"])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_table(scores: Sequence[Mapping[str, float]]) -> str:
    """Writes a Markdown table: the means over the rows, as `champ.train.evaluate` takes them over its clips."""
    found = mean_of_clips(scores)
    lines = [f"| rows | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    lines.append(f"| {len(scores)} | {' | '.join(f'{value:.4g}' for value in found.values())} |")
    return "\n".join(lines) + "\n"


def as_html(folder: BatchFolder, rows: Sequence[Mapping[str, object]], title: str) -> str:
    """Writes a page without scripts, whose pictures and links lie beside it; what failed comes first."""
    given = dict.fromkeys(name for row in rows for name in row if row[name] is not None)
    numbers = {NUMBERS.get(name, name): name for name in given if name in NUMBERS or name not in FIXED}
    ordered = sorted(rows, key=lambda row: ("failed", "done", "left").index(str(row["state"])))
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>',
            f"<h1>{html.escape(title)}</h1>",
            *(f"<p>{html.escape(line)}</p>" for line in summary(rows)),
            _html_table(
                ["", "name"], list(numbers), [""], [_html_row(folder, row, list(numbers.values())) for row in ordered]
            ),
            "<h2>Seconds of each node</h2>",
            _html_table(
                ["node"], ["ran in rows", "seconds each time", "seconds a row"], [], _html_stages(folder, rows)
            ),
            "</html>\n",
        ]
    )


def summary(rows: Sequence[Mapping]) -> list[str]:
    states = [row["state"] for row in rows]
    counts = ((states.count("done"), "done"), (states.count("failed"), "set aside"), (states.count("left"), "left"))
    lines = [f"{len(rows)} rows: " + ", ".join(f"{count} {word}" for count, word in counts if count) + "."]
    if seconds := [row["seconds"] for row in rows if row["state"] == "done"]:
        lines.append(f"A row took {sum(seconds) / len(seconds):.1f} s on average, {max(seconds):.1f} s at most.")
    if scores := measures(rows):
        found = ", ".join(f"{name} {value:.4g}" for name, value in mean_of_clips(scores).items())
        lines.append(f"Means of {len(scores)} measured rows: {found}.")
    return lines


def _html_row(folder: BatchFolder, row: Mapping[str, object], numbers: Sequence[str]) -> str:
    name, state = str(row["name"]), str(row["state"])
    place = {"done": f"clips/{quote(name)}/", "failed": f"failed/{quote(name)}/"}.get(state)
    picture = ""
    if state == "done" and (folder.clips / name / THUMBNAIL).exists():
        picture = f'<img loading="lazy" alt="" src="{place}{THUMBNAIL}">'
    words = html.escape(str(row["message"]))
    if state == "failed":
        words += f' <a href="{place}log.txt">log</a>'
    cells = [
        f"<td>{picture}</td>",
        f'<td><a href="{place}">{html.escape(name)}</a></td>' if place else f"<td>{html.escape(name)}</td>",
        *(f'<td class="number">{_number(row.get(name))}</td>' for name in numbers),
        f"<td>{words}</td>",
    ]
    return f'<tr class="{state}">{"".join(cells)}</tr>'


def _html_stages(folder: BatchFolder, rows: Sequence[Mapping[str, object]]) -> list[str]:
    """How long the nodes took; in the other rows ComfyUI's cache had their results."""
    found: dict[str, list[float]] = {}
    done = [str(row["name"]) for row in rows if row["state"] == "done"]
    for name in done:
        for title, seconds in (folder.manifest(name) or {}).get("stages", {}).items():
            found.setdefault(title, []).append(seconds)
    return [
        f"<tr><td>{html.escape(title)}</td>"
        + "".join(
            f'<td class="number">{_number(value)}</td>'
            for value in (len(times), sum(times) / len(times), sum(times) / len(done))
        )
        + "</tr>"
        for title, times in sorted(found.items(), key=lambda item: -sum(item[1]))
    ]


def _html_table(before: Sequence[str], numbers: Sequence[str], after: Sequence[str], rows: Sequence[str]) -> str:
    """With heads of three kinds: those of numbers stand above them."""
    heads = [f"<th>{html.escape(head)}</th>" for head in (*before, *after)]
    heads[len(before) : len(before)] = [f'<th class="number">{html.escape(head)}</th>' for head in numbers]
    return "\n".join([f"<table><tr>{''.join(heads)}</tr>", *rows, "</table>"])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
