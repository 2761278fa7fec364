"""Requests from this server's own pages, beside ComfyUI's."""

from aiohttp import web
from comfy.cli_args import args

from ..champ.origin import is_trusted


async def asked(request: web.Request) -> dict:
    """Returns the JSON of a POST from this server's own pages. A foreign page can send a form or text without
    permission, but not JSON."""
    host = request.headers.get("Host", "")
    if not is_trusted(host, request.headers.get("Origin"), args.listen, args.enable_cors_header):
        raise web.HTTPForbidden(
            text=f"ComfyUI was opened under the name {host[:100]!r}, which could belong to a foreign page; open it by "
            "its IP address or by https, or start it with --enable-cors-header and that address."
        )
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text=f"The request is of type {request.content_type}; send JSON.")
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError):  # no JSON, an unknown charset, JSON that is too deep
        raise web.HTTPBadRequest(text="The request is not JSON in UTF-8; send an object.") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text=f"The request is a JSON {type(body).__name__}; send an object.")
    return body
