"""A file is worth what its renderer shows: the pictures of the run, without the run, its data or Nerfstudio."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.exported import contrasty, small_model, write_model
from support.exported_kilo import kilo_model, write_kilo
from support.pages import ROOT, python_blocks
from support.tiny_run import SCENE_BOX, rays, shrink, tiny_widths

from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig

REAL: dict[str, Any] = {
    "use_scene_contraction": True,
    "coarse_sampler": "piecewise",
    "collider_params": {"near_plane": 0.05, "far_plane": 1000.0},
    "background_color": "last_sample",
}
"""Options of `nerf-prune-real`."""


def pruned() -> PruneModel:
    """Widths as a budget leaves them, other ones in each layer and field."""
    model = small_model()
    widths = {name: 3 + 2 * i % 7 for i, name in enumerate(tiny_widths(16, 8))}
    return shrink(model, widths).eval()


MODELS = {
    "plain": lambda: small_model(skip_connections=()),
    "skips": lambda: small_model(skip_connections=(1, 3, 7)),
    "irregular widths": pruned,
    "real": lambda: small_model(**REAL),
    "one layer": lambda: small_model(base_mlp_num_layers=1, head_mlp_num_layers=1, skip_connections=()),
    "demo": lambda: small_model(position_max_freq_exp=3.0, num_coarse_samples=5, num_importance_samples=17),
    "random background": lambda: small_model(background_color="random"),
    "black background": lambda: small_model(background_color="black"),
}


def assert_same_pictures(model: PruneModel, path: Path, num_rays: int = 64) -> None:
    """Compares all that a renderer gives with what the host's evaluation gives."""
    bundle = rays(num_rays)
    with torch.no_grad():
        expected = model(bundle)
        found = load_exported(path)(bundle.origins, bundle.directions)
    assert found.keys() == {"rgb", "depth", "accumulation"}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
    # Colours that are all alike would be equal whatever the renderer did.
    assert float(found["rgb"].std(dim=0).max()) > 0.02 and float(found["depth"].std()) > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_those_of_the_host(name: str, tmp_path: Path) -> None:
    """Samplers, encoding, contraction, skips, compositing and background are all written anew for the file; one that
    differs shows other pictures, and nobody who has the file alone could tell."""
    model = MODELS[name]()
    assert_same_pictures(model, write_model(tmp_path / "a.safetensors", model))


def test_stock_weights(stock_state: dict[str, Any], tmp_path: Path) -> None:
    """The stock method's network has its size from the host, not from our options."""
    model = PruneModelConfig(num_coarse_samples=8, num_importance_samples=8).setup(
        scene_box=SCENE_BOX, num_train_data=1
    )
    model.load_state_dict(stock_state)
    assert_same_pictures(contrasty(model, 1), write_model(tmp_path / "a.safetensors", model), 32)


def test_chunks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large picture is rendered in parts, and none of its rays at all is a picture too."""
    network = load_exported(write_model(tmp_path / "a.safetensors", small_model()))
    bundle = rays(50)
    whole = network(bundle.origins, bundle.directions)
    monkeypatch.setattr("nerfstudio_prune.export.nerf_rendering.FLOATS_AT_ONCE", 17 * 79 * 7)
    parts = network(bundle.origins, bundle.directions)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    none = network(bundle.origins[:0], bundle.directions[:0])
    assert {name: tuple(value.shape) for name, value in none.items()} == {
        "rgb": (0, 3),
        "depth": (0, 1),
        "accumulation": (0, 1),
    }


WITHOUT_NERFSTUDIO = """
import sys
for name in ("nerfstudio", "nerfacc", "viser", "tyro", "rich"):
    sys.modules[name] = None
import torch
from nerfstudio_prune.export.rendering import load_exported
network = load_exported(sys.argv[1])
origins, directions = torch.load(sys.argv[2])
torch.save(network(origins, directions)["rgb"], sys.argv[3])
own = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(*sorted(own & {"numba", "matplotlib", "PIL", "scipy", "torchvision", "yaml", "typeguard"}))
"""


@pytest.mark.parametrize(
    ("make", "write"),
    [(lambda: small_model(**REAL), write_model), (lambda: kilo_model("last_sample", True), write_kilo)],
)
def test_renders_where_there_is_no_nerfstudio(make: Any, write: Any, tmp_path: Path) -> None:
    """The point of the file: it opens where torch and safetensors are, in a fresh interpreter that cannot import
    Nerfstudio, and shows the same."""
    model, bundle = make(), rays(16)
    path = write(tmp_path / "a.safetensors", model)
    torch.save((bundle.origins, bundle.directions), tmp_path / "rays")
    command = [sys.executable, "-c", WITHOUT_NERFSTUDIO, str(path), str(tmp_path / "rays"), str(tmp_path / "rgb")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "rgb"), model(bundle)["rgb"], rtol=1e-5, atol=1e-5)


def test_example_of_the_page_gives_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that somebody does who was sent a file."""
    (code,) = python_blocks(ROOT / "docs" / "export.md")
    write_model(tmp_path / "lego.safetensors", small_model())
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["picture"].shape == (64, 64, 3) and float(found["picture"].std()) > 0.02
