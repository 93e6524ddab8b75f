"""What the surroundings offer: packages, device, directories, data at hand."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path

from companion import store
from companion.errors import EnvironmentFailure


def surroundings() -> dict[str, dict[str, str]]:
    """Tell what ``companion doctor`` prints: packages, device, directories, data at hand."""
    from companion import __version__
    from companion.datasets import medmnist_flags

    run = store.provenance()
    packages = {"companion": __version__, "python": platform.python_version()}
    packages |= {name: version or "missing" for name, version in run["libraries"].items()}
    extras = {"dicom": "pydicom", "cluster": "dask", "timm": "timm", "dev": "jupyter_book"}
    for extra, module in extras.items():
        packages[f"extra {extra}"] = "installed" if importlib.util.find_spec(module) else "not installed"
    try:
        import torch

        from companion.models import best_device, torchvision

        torchvision()
        device = str(best_device())
        weights = str(Path(torch.hub.get_dir()) / "checkpoints")
    except (ImportError, EnvironmentFailure) as error:
        device, weights = f"none: {error}", "unknown"
    data = store.data_dir()
    found = (
        sorted({path.stem for pattern in ("*.npz", "*/*.npz") for path in data.glob(pattern)})
        if data.is_dir()
        else []
    )
    flags = [name for name in found if name.split("_")[0] in medmnist_flags()]
    free = shutil.disk_usage(
        next(p for p in (store.cache_dir(), *store.cache_dir().parents) if p.exists())
    ).free
    return {
        "packages": packages,
        "device": {"used": device},
        "directories": {
            "data": str(data),
            "cache": str(store.cache_dir()),
            "torch's weights": weights,
            "free in cache": f"{free / 1e9:.0f} GB",
        },
        "data at hand": {
            "MedMNIST": ", ".join(flags) or "none",
            "other": ", ".join(sorted(set(found) - set(flags))) or "none",
        },
    }
