"""Which pages may ask this server to do something."""

from ipaddress import ip_address
from urllib.parse import urlsplit

# Names that the public DNS never has: RFC 6761, 6762, 8375, and ICANN's resolution of 2024 on ".internal".
PRIVATE = ("localhost", "local", "home.arpa", "internal")


def is_trusted(host: str, origin: str | None, listen: str, cors: str | None) -> bool:
    """Whether a request with these headers Host and Origin comes from a page of this server; `listen` and `cors` are
    ComfyUI's options.

    ComfyUI refuses pages whose Origin is not their Host, and browsers let no page from elsewhere send JSON. What passes
    both is DNS rebinding: a page under a name of its owner's, who then lets that name point at this machine, so that
    Host and Origin agree. It needs a name of the public DNS and plain http, for no certificate for its name is here.
    So it is enough to know that Host is none of that: an address, a name that is not in the public DNS or that the
    user gave to ComfyUI, or a page that came by https."""
    name = _name(f"//{host}")
    if not name:
        return False
    if _is_address(name) or "." not in name or name.endswith(tuple(f".{end}" for end in PRIVATE)):
        return True
    if cors == "*" or name in {_name(f"//{given}") for given in listen.split(",")} | {_name(cors or "")}:
        return True
    return origin is not None and origin.startswith("https://") and _name(origin) == name


def _name(url: str) -> str:
    """The host's name in an address, "" if there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
