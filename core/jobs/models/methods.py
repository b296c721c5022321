"""What ``rsfusion methods`` says: the ways of pre-training with when to use which, and what of each can be switched."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from core.models.architectures import ARCHITECTURES
from core.pretraining.methods import METHODS
from core.pretraining.recipes.build import make_recipe


def methods_data() -> dict[str, Any]:
    """The methods; plain data for JSON."""
    return {
        "methods": [
            {
                **asdict(method),
                "switches": asdict(make_recipe(method.name)),
                "switches_as_published": asdict(make_recipe(method.name, "paper")),
                "settings": asdict(make_recipe(method.name).settings("small")),
                "size_as_published": method.encoder_size("paper") or ARCHITECTURES[method.architecture].size,
                "settings_as_published": asdict(make_recipe(method.name, "paper").settings("paper")),
            }
            for method in METHODS.values()
        ]
    }


def methods_text(data: dict[str, Any]) -> str:
    """The same for people."""
    lines = []
    for method in data["methods"]:
        architecture = ARCHITECTURES[method["architecture"]]
        switches = ", ".join(f"{name}={_text(value)}" for name, value in method["switches"].items())
        small, paper = method["settings"], method["settings_as_published"]
        lines += [
            f"{method['name']}: {method['title']}",
            f"    {method['use']}",
            f"    Architecture: {architecture.title}. After {method['source']}.",
            f"    Small: {_settings(small)}. Paper: {_settings(paper)}, {_encoder(method)}.",
            f"    Switches: {switches}",
            "",
        ]
    return "\n".join(lines).rstrip()


def _settings(values: dict[str, Any]) -> str:
    return f"{values['epochs']} epochs of windows of {values['window_size']}, {values['batch_size']} a step"


def _encoder(method: dict[str, Any]) -> str:
    patch = f" with patches of {method['paper_patch']}" if method["paper_patch"] else ""
    return f"the encoder {method['size_as_published']}{patch}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"
