"""What is said about a file that cannot be read: one sentence with its name, the reason, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEAD = 512  # bytes at the beginning that tell a web page or a pointer from a file


class DamagedError(Exception):
    """Half a sentence that says why a file cannot be read, such as "it is empty"."""


class RefusedError(DamagedError):
    """The name of a class or function that the file mentions and its kind has no use for."""


@contextmanager
def reading(path: Path, what: str, advice: str, name: str = "") -> Iterator[None]:
    """Turns whatever a file makes its reader raise into one sentence: `name` cannot be read as `what`; `advice`.

    A context for the reading alone, since a ValueError from within is taken for the file's fault, too. The name is the
    file's own where no other is given."""
    name = name or path.name
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
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(f"{name} cannot be read as {what}: it is damaged; {advice}.") from error


def check_content(path: Path) -> None:
    """Tells from a file what people often have in its place: nothing, a folder, a web page, a pointer of Git LFS."""
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
