"""Downloads one file over HTTP: resumes where it stopped, and keeps nothing with a wrong checksum."""

import errno
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from .output import flush, make_folder, not_saved
from .progress import advance
from .weights import WeightFile

HUB = "https://huggingface.co"
BLOCK = 1 << 20  # bytes
TIMEOUT = 20  # seconds without a byte
TRIES = 5  # tries in a row without a byte
PAUSE = 1.0  # seconds before the second try; doubled before each further one
CUT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def address(file: WeightFile) -> str:
    """Returns the file's address on Hugging Face, or on the mirror in the variable HF_ENDPOINT."""
    return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{file.source}/resolve/main/{file.place}"


def download(url: str, target: Path, sha256: str | None = None) -> str:
    """Downloads `url` to `target`, which appears when it is complete and verified. Returns what it was verified
    against.

    Until then its bytes are in `target`.part; the next call resumes if the server still has the same file. Without
    `sha256`, the file must have the checksum that Hugging Face announces.
    """
    _check_address(url)
    part, etag = (target.with_name(target.name + end) for end in (".part", ".part.etag"))
    try:
        make_folder(target.parent)
        for path in (target, part, etag):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        announced = _fetch(url, target, part, etag, sha256)
        right = _sha256(part) == (sha256 or announced)
        if right:
            flush(part)
            os.replace(part, target)
        else:
            part.unlink()
        etag.unlink(missing_ok=True)
    except OSError as error:
        kept = " What has arrived is kept; press Download to continue." if part.is_file() else ""
        raise ValueError(not_saved(target, error) + kept) from error
    if not right:
        raise ValueError(
            f"{target.name} came with a wrong checksum and was removed; download it again, or get it by hand from "
            f"{urlsplit(url).netloc}."
        )
    return "the checksum in this pack's list" if sha256 else "the checksum that the server announced"


def _fetch(url: str, target: Path, part: Path, etag: Path, sha256: str | None) -> str | None:
    """Sends requests until the part is complete, or several in a row bring nothing. Returns the announced checksum."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            return _receive(url, part, etag, sha256)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise ValueError(
                    f"{target.name} cannot be downloaded from {url}: the server answered {error.code} "
                    f"({error.reason}); get it by hand and put it into {target.parent}."
                ) from None
            reason = str(error)
        except CUT as error:
            reason = str(error)
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless == TRIES:
            raise ValueError(
                f"The download of {target.name} stopped after {_size(part) / 1e6:.0f} MB ({reason}); check the "
                "connection and press Download again, which continues from there."
            )
        until = time.monotonic() + PAUSE * 2**fruitless
        while time.monotonic() < until:
            advance(_size(part), 0)
            time.sleep(min(0.1, PAUSE))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only safe redirects, and keeps the checksum that Hugging Face announces before a redirect."""

    announced: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_address(newurl, req.full_url)
        self.announced = _announced(headers) or self.announced
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(url: str, part: Path, etag: Path, sha256: str | None) -> str | None:
    """Sends one request; appends to the part if the server still has the same file. Returns the announced checksum."""
    done = _size(part) if etag.exists() else 0
    headers = {"User-Agent": "ComfyUI-Champ", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": etag.read_text()}
    redirects = _Redirects()
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return redirects.announced  # nothing was left to fetch
        raise
    with answer:
        if answer.status != 206:
            done = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            etag.unlink()  # start again
            raise ConnectionError("the server sent another part of the file than the requested one")
        announced = redirects.announced or _announced(answer.headers)
        _check_checksums(part.stem, sha256, announced)
        rest = int(answer.headers.get("Content-Length", 0))
        _check_disk(part, rest)
        total = done + rest if rest else 0
        version = answer.headers.get("ETag", "")
        if version.startswith('"'):  # a weak one does not promise the same bytes
            etag.write_text(version)
        else:
            etag.unlink(missing_ok=True)
        with open(part, "ab" if done else "wb") as file:
            while block := answer.read1(BLOCK):
                file.write(block)
                done += len(block)
                advance(done, total)
    if done < total:
        raise ConnectionError(f"the connection ended {total - done} bytes too early")
    return announced


def _announced(headers) -> str | None:
    """Returns the sha256 of a large file, which Hugging Face sends in X-Linked-ETag; for a small file this is no
    sha256."""
    found = re.fullmatch(r'"?([0-9a-f]{64})"?', headers.get("X-Linked-ETag", ""))
    return found and found[1]


def _check_checksums(name: str, sha256: str | None, announced: str | None) -> None:
    if not (sha256 or announced):
        raise ValueError(
            f"The server names no checksum for {name}, so the download could not be verified; use another mirror in "
            "HF_ENDPOINT, or get the file by hand."
        )
    if sha256 and announced and sha256 != announced:
        raise ValueError(
            f"The server's {name} is not the one that this pack knows; update the pack, or get the file by hand."
        )


def _check_disk(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + BLOCK:
        raise ValueError(
            f"{part.stem} needs {needed / 1e9:.2f} GB more, but {part.parent} has {free / 1e9:.2f} GB free; free some "
            "space and press Download again."
        )


def _check_address(url: str, before: str | None = None) -> None:
    """Allows https anywhere, and http only to this machine and not by a redirect from another one."""
    inside = _is_loopback(url) and (before is None or _is_loopback(before))
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and inside):
        raise ValueError(
            f"The download would come from {urlsplit(url)._replace(query='').geturl()}, which is not https; set "
            "HF_ENDPOINT to an https address or remove it."
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    digest, size = hashlib.sha256(), _size(path)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            advance(size, size)
    return digest.hexdigest()
