"""The command line: the jobs of ``core.jobs.schemas`` as commands, with the same keys.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 cancelled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from core.commands import assessment, change, labelling, learning, listing, mapping, products, running, scenes
from core.jobs import process

COMMANDS: dict[str, Callable[..., None]] = {
    "sample-scene": mapping.sample_scene,
    "finetune": learning.finetune,
    "pretrain": learning.pretrain,
    "distil": learning.distil,
    "features": mapping.features,
    "map": mapping.map_scene,
    "export": mapping.export,
    "scenes": scenes.scenes,
    "sample": assessment.sample,
    "suggest": labelling.suggest,
    "pseudolabels": labelling.pseudolabels,
    "assess": assessment.assess,
    "clean": products.clean,
    "vectorize": products.vectorize,
    "areas": products.areas,
    "change": products.change,
    "detect-change": change.detect_change,
    "models": listing.models,
    "methods": listing.methods,
    "run": running.run,
    "version": listing.version,
}
"""In the order of the help."""

app = typer.Typer(
    name="rsfusion",
    help="Land-cover maps from whatever sensors see the ground.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Entry point of the command ``rsfusion``."""
    process.begin()
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read the events has gone; Python would complain once more about it at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
