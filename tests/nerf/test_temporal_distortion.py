"""Moving scenes: a network beside the fields that is trained, never pruned, and counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny_run import checkpoint, resume, same_bits, start, tiny_parameters, tiny_widths, train, widths
from torch import nn

from nerfstudio_prune.nerf.subject import EdgeSubject, NeuronSubject
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParser

Config = Callable[..., Any]
METHODS = ("nerf-prune", "nerf-prune-demo", "nerf-prune-real")
DISTORTION = (63 + 21 + 1) * 256 + 2 * (256 + 1) * 256 + (256 + 1) * 3
"""Parameters of four layers of 256 neurons on encoded position and time."""


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each view of the built-in scene a time of its own, as D-NeRF data has."""
    parse = DemoDataParser.get_dataparser_outputs

    def with_times(parser: Any, *args: Any, **options: Any) -> Any:
        outputs = parse(parser, *args, **options)
        outputs.cameras.times = torch.linspace(0, 1, len(outputs.cameras))[:, None]
        return outputs

    monkeypatch.setattr(DemoDataParser, "get_dataparser_outputs", with_times)


def moving(config: Any) -> Any:
    config.pipeline.model.enable_temporal_distortion = True
    return config


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_it(tiny_config: Config, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The options are those of the model, which all methods have. It must learn, be left alone by the cut, and count in
    every sum: the table that said 3.57x fewer parameters was of a model that shrank by a tenth."""
    trainer = start(moving(tiny_config(method=method, start_step=3, pruning_ratio=0.5)))
    model = trainer.pipeline.model
    before = {name: value.clone() for name, value in model.temporal_distortion.state_dict().items()}
    trainer.train()
    after = model.temporal_distortion.state_dict()
    assert all(before[name].shape == after[name].shape for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert widths(model) == tiny_widths(8, 4)
    (event,) = model.prune_state.history
    sizes = [event.before.costs["parameters"], event.after.costs["parameters"]]
    assert sizes == [tiny_parameters(16, 8) + DISTORTION, tiny_parameters(8, 4) + DISTORTION]
    assert sizes[1] == sum(p.numel() for p in model.parameters())
    text = " ".join(capsys.readouterr().out.split())
    assert f"│ whole model │ │ {sizes[0]:,} → {sizes[1]:,} │" in text
    assert f"{sizes[0] / sizes[1]:.2f}x fewer parameters" in text and sizes[0] / sizes[1] < 1.1


def test_resumed_run_is_the_uninterrupted_run(tiny_config: Config) -> None:
    """It has an optimizer and a scheduler of its own, which the checkpoint has to hold."""
    options: dict[str, Any] = {"start_step": 7, "pruning_ratio": 0.5}
    config = tiny_config("whole", **options)
    config.steps_per_save, config.save_only_latest_checkpoint = 5, False
    whole = train(moving(config), same_noise=True)
    resumed = train(moving(resume(tiny_config("resumed", **options), whole, 5, 4)), same_noise=True)
    expected, found = checkpoint(whole, 9), checkpoint(resumed, 9)
    assert set(expected["optimizers"]) == {"fields", "temporal_distortion"}
    assert same_bits(expected["optimizers"], found["optimizers"])
    assert same_bits(expected["schedulers"], found["schedulers"])
    weights = [{name: v for name, v in saved["pipeline"].items() if torch.is_tensor(v)} for saved in (expected, found)]
    assert same_bits(*weights)


def test_data_without_times(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host leaves the distortion out then, and its parameters are carried along untrained without a word."""
    told = "--pipeline.model.enable-temporal-distortion True has no effect: the views have no times"
    start(moving(tiny_config()))
    assert told not in " ".join(capsys.readouterr().out.split())
    monkeypatch.undo()
    train(moving(tiny_config(start_step=3)))
    assert " ".join(capsys.readouterr().out.split()).count(told) == 1
    start(tiny_config())
    assert told not in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("subject", "extra"), [(NeuronSubject, ""), (EdgeSubject, " (edges that live)")])
def test_sums_say_what_they_are_of(subject: Any, extra: str) -> None:
    """A sum that is called that of both fields must be that."""

    class Model:
        """As much of a model as the name of its sums looks at."""

        def __init__(self, groups: list[str], fields: list[str]) -> None:
            self.get_param_groups = lambda: {name: [nn.Parameter(torch.ones(1))] for name in groups}
            self.fields = lambda: dict.fromkeys(fields)

    both = ["field_coarse", "field_fine"]
    named = [
        subject(Model(["fields"], both), None).total,
        subject(Model(["fields", "temporal_distortion"], both), None).total,
        subject(Model(["fields"], ["field"]), None).total,
    ]
    assert named == [f"{name}{extra}" for name in ("both fields", "whole model", "whole model")]
