"""Options that are held against the data and against each other, before the first step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny_run import start

from nerfstudio_prune.nerf.checks import check_config, check_rays
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.pipeline import PrunePipelineConfig


def views(*sizes: tuple[int, int]) -> Any:
    """A data set of views of given heights and widths."""
    heights, widths = (torch.tensor(side)[:, None] for side in zip(*sizes, strict=True))

    class Views(list[Any]):
        cameras = SimpleNamespace(height=heights, width=widths)

    return Views(sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"calibration_rays": 2501},
            "prune.calibration_rays must be at most the number of pixels, 2,500 in 2 training views; got 2501",
        ),
        (
            {"num_eval_rays": 10_001},
            "prune.num_eval_rays must be at most the number of pixels, 10,000 in 1 evaluation views; got 10001",
        ),
    ],
)
def test_more_rays_than_pixels(options: dict[str, Any], message: str) -> None:
    """All rays beyond would be seen twice, and a slip of the finger asks for a day's work at every event."""
    data = views((30, 50), (20, 50)), views((100, 100))
    check_rays(PruneConfig(**{name: value - 1 for name, value in options.items()}).filled(), *data)
    with pytest.raises(ValueError) as caught:
        check_rays(PruneConfig(**options).filled(), *data)
    assert str(caught.value) == message


def test_the_defaults_suit_any_number_of_pixels() -> None:
    """A scene of thumbnails, or one without evaluation views, trains without an option."""
    check_rays(PruneConfig().filled(), views((2, 2)), views((1, 1)))
    check_rays(PruneConfig(num_eval_rays=10_000).filled(), views((2, 2)), None)


def test_steps_that_fit_into_no_memory() -> None:
    """Each of the numbers may be that large, all together not."""
    config = PrunePipelineConfig()
    config.datamanager.train_num_rays_per_batch = 2**20  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"asks the fields at 269,484,032 points in a step; the most is 67,108,864$"):
        check_config(config, trains=True)
    check_config(config, trains=False)


def test_rates_that_are_too_large_together(tiny_config: Any) -> None:
    """Each is within its range, and the product would be the rate of the training."""
    config = tiny_config(recovery_lr_factor=50.0)
    config.optimizers["fields"]["optimizer"].lr = 0.1
    with pytest.raises(ValueError) as caught:
        start(config)
    assert str(caught.value) == (
        "prune.recovery_lr_factor 50 on the learning rate of optimizers.fields, 0.1, gives 5; the most is 1"
    )


def test_optimizers_are_looked_at_before_they_are_made(tiny_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses some of these too, but names no option."""
    config = tiny_config()
    config.optimizers["fields"]["optimizer"].eps = -1.0
    monkeypatch.setattr(type(config.pipeline.datamanager), "setup", lambda *args, **kwargs: pytest.fail("data loaded"))
    with pytest.raises(ValueError, match=r"^optimizers\.fields\.optimizer\.eps must be in \[0, 1\], got -1\.0$"):
        start(config)


def test_options_are_looked_at_before_the_data_are_loaded(tiny_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of photographs take a minute; a slip of the finger is told before."""
    config = tiny_config(calibration_rays=10**12)
    monkeypatch.setattr(type(config.pipeline.datamanager), "setup", lambda *args, **kwargs: pytest.fail("data loaded"))
    with pytest.raises(ValueError, match=r"^prune\.calibration_rays must be in \[1, 262,144\], got 1000000000000$"):
        start(config)
