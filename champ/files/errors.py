"""Error messages for files that cannot be read: one sentence with the name, the reason, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

HEAD = 512  # bytes at the beginning, enough to recognise a web page or a Git LFS pointer
LISTED = ContextVar[int | None]("LISTED", default=None)  # numbers in the lists of a file that were converted


class DamagedError(Exception):
    """The reason why a file cannot be read, as a clause such as "it is empty"."""


class RefusedError(DamagedError):
    """The name of a class or function in the file that its kind does not need."""


@contextmanager
def reading(path: Path, what: str, advice: str, name: str = "") -> Iterator[None]:
    """Turns every error of a file's reader into one sentence: `name` cannot be read as `what`: the reason; `advice`.

    Use it around the reading alone: any ValueError inside is taken as the file's fault. `name` is the file's own by
    default.
    """
    name = name or path.name
    listed = LISTED.set(0)
    try:
        check_content(path)
        yield
    except RefusedError as error:
        raise ValueError(
            f"{name} was refused and nothing in it was run: it calls {error}, which no {what.partition(' ')[2]} needs; "
            f"{advice}."
        ) from None
    except DamagedError as error:
        raise ValueError(f"{name} cannot be read as {what}: {error}; {advice}.") from None
    except OSError as error:
        reason = f"the system reports {error.strerror or type(error).__name__}"
        raise ValueError(f"{name} cannot be read as {what}: {reason}; {advice}.") from error
    except MemoryError:
        raise ValueError(f"{name} cannot be read as {what}: there is not enough memory; {advice}.") from None
    except Exception as error:  # a damaged file can make its reader raise anything
        raise ValueError(f"{name} cannot be read as {what}: it is damaged; {advice}.") from error
    finally:
        LISTED.reset(listed)


def check_content(path: Path) -> None:
    """Recognises what people often have instead of the file: nothing, a folder, a web page, a pointer of Git LFS."""
    if path.is_dir():
        raise DamagedError("it is a folder")
    if not path.is_file():
        raise DamagedError("it is not there" if not path.exists() else "it is not an ordinary file")
    with path.open("rb") as file:
        head = file.read(HEAD).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        raise DamagedError("it is empty")
    if head.startswith(b"version https://git-lfs"):
        raise DamagedError("it is only a pointer of Git LFS to the real file")
    if head[:9].lower() == b"<!doctype" or head[:5].lower() in (b"<html", b"<head"):
        raise DamagedError("it is a web page that was saved under this name")
