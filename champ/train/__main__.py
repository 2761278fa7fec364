"""python -m champ.train: prepare synthetic samples, encode them, train the two stages, distil, export."""

# ruff: noqa: E402 - ComfyUI must be found, and be told which device to use, before its import.
import argparse
import os
import sys

import torch

if "COMFYUI_PATH" in os.environ:
    sys.path.append(os.environ["COMFYUI_PATH"])

if torch.cuda.is_available():
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # ComfyUI's device is the current one

import comfy.cli_args

graphics = (torch.cuda, torch.backends.mps, getattr(torch, "xpu", None))
if not any(kind is not None and kind.is_available() for kind in graphics):
    comfy.cli_args.args.cpu = True

from . import commands


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m champ.train", description=__doc__)
    commands.add_commands(parser.add_subparsers(required=True))
    options = parser.parse_args()
    try:
        options.run(options)
    except ValueError as error:  # what a user can change; anything else is a fault, and keeps its traceback
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")


main()
