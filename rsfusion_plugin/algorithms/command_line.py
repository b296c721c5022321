"""The command line that does the same as an algorithm, for the log: what was clicked can be written into a script."""

import os
import shlex
import subprocess  # nosec B404 # only for the quoting rules of Windows; nothing is run here

_COMMANDS = {
    "sample-scene": "sample-scene",
    "pretrain": "pretrain",
    "finetune": "finetune",
    "distil": "distil",
    "map": "map",
    "features": "features",
    "sampling-design": "sample",
    "suggest-labels": "suggest",
    "pseudolabels": "pseudolabels",
    "accuracy": "assess",
    "clean-map": "clean",
    "vectorize-map": "vectorize",
    "zonal-areas": "areas",
    "change-map": "change",
    "detect-change": "detect-change",
    "classify-scenes": "scenes",
}


def command_line(job):
    """The ``rsfusion`` command of a job.

    Class names and colours from a layer's style have no option; they are in the job file alone.

    Args:
        job: plain data, as ``core/jobs/schemas.py`` has it.

    Returns:
        One line, quoted for the shell of this system.
    """
    words = ["rsfusion", _COMMANDS[job["kind"]]]
    if job["kind"] == "sample-scene":
        words.append(job["output"])
    for key, value in _options(job):
        words.append("--" + key.replace("_", "-"))
        if value is not None:
            words.append(value)
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(shlex.quote, words))


def _options(job):
    """Option and value, in the order of the job; a list gives its option once a value, a switch that is on has none."""
    for key, value in job.items():
        if key == "kind" or (key == "output" and job["kind"] == "sample-scene"):
            continue
        if key == "inputs":
            yield from _options(dict(value, kind=""))
        elif key == "scenes":
            yield from _options(dict(value[0], kind=""))
        elif key == "scenes_folder":
            yield "scenes", value
        elif key == "switches":
            for name, chosen in value.items():
                yield "switch", "{}={}".format(name, chosen)
        elif isinstance(value, bool):
            if value:
                yield key, None
        elif key in ("labels", "reference", "training", "zones"):
            yield key, value["path"]
            for part in ("layer", "class_field", "class_scheme", "id_field"):
                if value.get(part) is not None:
                    yield part, str(value[part])
        elif key == "extent":
            sides = ",".join(repr(value[side]) for side in ("left", "right", "bottom", "top"))
            yield key, "{} [{}]".format(sides, value["crs"])
        elif isinstance(value, list):
            for entry in value:
                yield key, str(entry)
        else:
            yield key, str(value)
