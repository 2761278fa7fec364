"""ComfyUI's own nodes that patch a MODEL, in its older and in its newer form."""

from typing import Any


def patched(node: Any, model: Any, **values: Any) -> Any:
    """Returns the MODEL that a node makes of another."""
    made = node.execute(model, **values) if hasattr(node, "execute") else node().patch(model, **values)
    return made[0]
