"""Decides which web pages may send requests to this server."""

from ipaddress import ip_address
from urllib.parse import urlsplit

# Names that the public DNS never has: RFC 6761, 6762, 8375, and ICANN's resolution of 2024 on ".internal".
PRIVATE = ("localhost", "local", "home.arpa", "internal")


def is_trusted(host: str, origin: str | None, listen: str, cors: str | None) -> bool:
    """Tells whether a request with these headers Host and Origin comes from a page of this server; `listen` and `cors`
    are ComfyUI's options.

    ComfyUI refuses pages whose Origin is not their Host, and browsers let no foreign page send JSON. DNS rebinding
    passes both checks: the owner of a page's domain name lets that name point to this machine, so Host and Origin
    agree. It needs a name in the public DNS and plain http, because there is no certificate for its name here. It is
    therefore enough that Host is none of that: an IP address, a name that is not in the public DNS, a name that the
    user gave to ComfyUI, or a page opened by https.
    """
    name = _name(f"//{host}")
    if not name:
        return False
    if _is_address(name) or "." not in name or name.endswith(tuple(f".{end}" for end in PRIVATE)):
        return True
    if cors == "*" or name in {_name(f"//{given}") for given in listen.split(",")} | {_name(cors or "")}:
        return True
    return origin is not None and origin.startswith("https://") and _name(origin) == name


def _name(url: str) -> str:
    """Returns the host name of an address, "" if there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
