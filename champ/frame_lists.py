"""Formats lists of frame numbers."""

from collections.abc import Iterable

LISTED = 8  # runs that a sentence names


def runs(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Returns the first and last frame of every run of consecutive frames among ascending numbers."""
    found: list[tuple[int, int]] = []
    for frame in map(int, frames):
        if found and frame == found[-1][1] + 1:
            found[-1] = found[-1][0], frame
        else:
            found.append((frame, frame))
    return found


def in_short(frames: Iterable[int]) -> str:
    """17-19, 63."""
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs(frames))


def in_words(frames: Iterable[int]) -> str:
    """ "frames 0, 3 to 5 and 9"; a long list ends in the number of further frames."""
    found = runs(frames)
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in found[:LISTED]]
    if len(found) > LISTED:
        texts.append(f"{sum(b - a + 1 for a, b in found[LISTED:])} more")
    several = len(found) > 1 or found[0][0] < found[0][1]
    return ("frames " if several else "frame ") + " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
