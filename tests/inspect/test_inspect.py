"""`ns-prune inspect`: what it says of a run must be what is in the checkpoint, and it must need nothing but that."""

import json
from collections.abc import Iterator
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from rich.console import Console
from support.saved_run import save_run
from support.tiny_run import SCENE_BOX, make_config, shrink, tiny_model, tiny_parameters, tiny_widths, train
from torch import nn

from nerfstudio_prune.core.events import PruneEvent, PruneState, ScheduledEvent, Sizes
from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.inspect import showing
from nerfstudio_prune.inspect.command import Inspect
from nerfstudio_prune.inspect.inspection import Inspection, inspect_model, layer_weights, summarize
from nerfstudio_prune.inspect.showing import inspect_run
from nerfstudio_prune.inspect.tables import all_tables, sizes_lines
from nerfstudio_prune.nerf.model import FIELDS
from nerfstudio_prune.neurons.edges import apply_masks
from nerfstudio_prune.neurons.groups import linears

FIRST, SECOND = "field_fine.mlp_base.layers.0", "field_fine.mlp_base.layers.1"
SCORES = ("w_in", "w_out", "w_in_w_out", "sensitivity")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of 10 steps: three events of which one is to come at the checkpoint of step 6; masked edges; none."""
    folder = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps: dict[str, Any] = {"schedule": "iterative", "start_step": 2, "stop_step": 8, "num_events": 3}
    for name, options in (
        ("cut", {**steps, "strategy": "importance", "score": "w_in", "width": 4}),
        ("edges", {"strategy": "edge", "edge_keep_fraction": 0.25, "start_step": 4}),
        ("dense", {"strategy": "none"}),
    ):
        config = make_config(folder, folder / "scene", name, **options)
        config.steps_per_save, config.save_only_latest_checkpoint = 6, False
        # The host's schedulers write numpy numbers, which a careful reader of checkpoints stumbles over.
        config.optimizers = deepcopy(all_methods["nerf-prune-demo"].optimizers)
        train(config)
    yield folder / "tiny" / "nerf-prune"
    reset_host()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(autouse=True)
def no_data(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are looked at on machines that have no data set, and reading its images takes longer than all the rest."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data set is loaded")

    monkeypatch.setattr(VanillaDataManager, "__init__", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def inspected(model: Any, tmp_path: Path) -> Inspection:
    """Inspects a model without a detour through files."""
    file = tmp_path / "any.ckpt"
    file.write_bytes(b"0" * 2_500_000)
    return inspect_model(SavedRun(all_methods["nerf-prune"], tmp_path / "config.yml", file, 0, model), SCORES)


def printed(found: Inspection) -> str:
    """The tables as a terminal of 100 columns shows them."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        for part in all_tables(found):
            console.print(part)
    return capture.get()


def test_pruned_run(runs: Path) -> None:
    """The end of a pruned run: widths come from the tensors, the start from the checkpoint's state, and costs from
    both; the network that the configuration describes is no more."""
    found = inspect_run(runs / "cut" / "config.yml", scores=SCORES)
    assert (found.method, found.step, found.strategy, found.phase) == ("nerf-prune", 9, "importance", "recovery")
    now = {name: cost.now.width for name, cost in found.costs.items() if cost.now.width is not None}
    initial = {name: cost.initial.width for name, cost in found.costs.items() if cost.initial.width is not None}
    assert now == tiny_widths(4, 2) and initial == tiny_widths(16, 8)
    assert found.total.now.parameters == tiny_parameters(4, 2)
    assert found.total.initial.parameters == tiny_parameters(16, 8)
    assert found.fields_mb == pytest.approx(tiny_parameters(4, 2) * 4e-6)
    file = runs / "cut" / "nerfstudio_models" / "step-000000009.ckpt"
    assert found.checkpoint == str(file) and found.checkpoint_mb == pytest.approx(file.stat().st_size * 1e-6)
    assert [event.step for event in found.history] == [2, 5, 8] and not found.pending
    assert set(found.scores) == set(SCORES) and all(list(part) == list(now) for part in found.scores.values())


def test_run_in_the_middle_of_its_schedule(runs: Path) -> None:
    """The question of somebody whose run is under way: what was done, and what is still to come."""
    found = inspect_run(runs / "cut" / "config.yml", step=6)
    assert (found.step, found.phase) == (6, "pruning")
    assert {cost.now.width for name, cost in found.costs.items() if ".mlp_base" in name} == {8}
    assert [event.step for event in found.history] == [2, 5]
    assert [(event.step, event.targets) for event in found.pending] == [(8, tiny_widths(4, 2))]
    text = printed(found)
    assert "Event to come at step 8: trunk 8 → 4, head 4 → 2" in text
    assert "importance by w_in" in text and "trunk 16 → 12" in text and "trunk 12 → 8" in text
    before, after = found.history[1].metrics_before["psnr"], found.history[1].metrics_after["psnr"]
    assert f"{before:.2f} → {after:.2f}" in text


def test_edge_pruned_run(runs: Path) -> None:
    """Masks make nothing smaller. Counting only what lives would claim a small network, counting only what is stored
    would hide what was done; so both are told."""
    found = inspect_run(runs / "edges" / "config.yml")
    assert found.total.now == found.total.initial and found.total.now.parameters == tiny_parameters(16, 8)
    for name, part in found.weights.items():
        hidden = found.costs[name].now.width is not None
        assert part.living == (round(0.25 * part.weights) if hidden else part.weights)
        assert part.zeros == part.weights - part.living
    assert found.masked == sum(part.weights - part.living for part in found.weights.values()) > 0
    assert found.field_weights["field_fine"].living == sum(
        part.living for name, part in found.weights.items() if name.startswith("field_fine")
    )
    text = printed(found)
    assert f"{tiny_parameters(16, 8):,} → {tiny_parameters(16, 8) - found.masked:,}" in text and "live" in text
    assert f"{found.history[0].before.parts[FIRST]:,}" in text and " edges" in text


def test_dense_run(runs: Path) -> None:
    """The control of every comparison has neither history nor plan."""
    found = inspect_run(runs / "dense" / "config.yml")
    assert (found.phase, found.history, found.pending, found.masked) == ("dense", [], [], 0)
    assert found.total.now == found.total.initial
    text = printed(found)
    assert "nothing was pruned yet" in text and "Events to come: none" in text and "→" not in text
    assert "live" not in text


def test_stock_run(tmp_path: Path) -> None:
    """Somebody wants to know how much of the own `vanilla-nerf` could go before trying this plugin. Its checkpoints
    carry a metric network, and nothing about pruning."""
    config = deepcopy(all_methods["vanilla-nerf"])
    config.pipeline.model.num_coarse_samples = 10  # type: ignore[attr-defined]
    model = all_methods["nerf-prune"].pipeline.model.setup(scene_box=SCENE_BOX, num_train_data=1)
    state = {key: value for key, value in model.state_dict().items() if key != "_extra_state"}
    holder = nn.Module()
    holder.state_dict = lambda: {**state, "lpips.net.weight": torch.zeros(3)}  # type: ignore[method-assign,assignment]
    found = inspect_run(save_run(tmp_path, holder, config))
    assert (found.method, found.strategy, found.phase) == ("vanilla-nerf", None, "dense")
    assert found.total.now.parameters == found.total.initial.parameters == 1_093_128
    cost = found.costs["field_coarse.mlp_base.layers.0"].now
    assert (cost.width, cost.parameters, cost.macs_per_ray) == (256, 64 * 256, 63 * 256 * 10)


def test_costs_before_and_now() -> None:
    """By hand, for the layer behind the skip connection and for an output: the encoded position does not shrink. MACs
    count the samples of the field: 8 in the coarse one, 17 in the fine one."""
    model = tiny_model()
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    shrink(model, tiny_widths(4, 2))
    found = inspect_model(SavedRun(all_methods["nerf-prune"], Path(), Path(__file__), 0, model), ())
    for field, samples in zip(FIELDS, (8, 17), strict=True):
        skip, colour = found.costs[f"{field}.mlp_base.layers.2"], found.costs[f"{field}.field_heads.0.net"]
        assert (skip.initial.parameters, skip.now.parameters) == ((63 + 16 + 1) * 16, (63 + 4 + 1) * 4)
        assert (skip.initial.macs_per_ray, skip.now.macs_per_ray) == (79 * 16 * samples, 67 * 4 * samples)
        assert (colour.initial.parameters, colour.now.parameters) == (9 * 3, 3 * 3)
        assert colour.now.width is None
    macs = sum(cost.now.macs_per_ray for cost in found.costs.values())
    assert found.total.now.macs_per_ray == macs < found.total.initial.macs_per_ray


def test_all_trained_networks_count(tmp_path: Path) -> None:
    """A total that leaves out a network of hundreds of thousands of weights promises a model many times smaller than
    the file that is then saved."""
    model = tiny_model(enable_temporal_distortion=True)
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    shrink(model, tiny_widths(4, 2))
    found = inspected(model, tmp_path)
    other = sum(parameter.numel() for parameter in model.temporal_distortion.parameters())
    assert other > tiny_parameters(16, 8)
    assert found.total.now.parameters == tiny_parameters(4, 2) + other
    assert found.total.initial.parameters == tiny_parameters(16, 8) + other
    assert "│ temporal_distortion " in printed(found)


def test_event_without_targets(tmp_path: Path) -> None:
    """Under a budget nobody knows the widths to come, and nothing but the share of the way can be told; single weights
    have no widths at all."""
    model = tiny_model()
    for options, text in (
        ({"preset": "best"}, "Event to come at step 9: 50% of the way to target_parameters 0.28"),
        ({"strategy": "edge", "edge_keep_fraction": 0.2}, "Event to come at step 9: 50% of the edges to prune"),
    ):
        model.prune_state = PruneState(options=options, plan=[ScheduledEvent(9, Fraction(1, 2))])
        assert text in printed(inspected(model, tmp_path))


def test_sparsity_by_hand() -> None:
    """Shares decide whether pruning by a threshold is worth a try. A weight at the threshold is not below it, as in
    strategy edge; a negative one counts by its size; a row of tiny weights is not dead."""
    weight = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0],
            [0.0, -0.005, 0.05, 0.2],
            [0.0, 0.06, -0.1, -3.0],
            [0.0, 1e-30, 0.0, 0.0],
        ]
    )
    part = layer_weights(weight)
    assert part.weights == part.living == 16
    assert part.below == {"0.01": 11, "0.05": 11, "0.1": 13}
    assert (part.zeros, part.dead_rows, part.dead_columns, part.not_finite) == (9, 1, 1, 0)
    # What a mask lets live may be zero by itself.
    masked = layer_weights(weight, weight.abs() < 0.1)
    assert (masked.living, masked.zeros) == (13, 9)


def test_fields_are_sums_of_their_layers(tmp_path: Path) -> None:
    """A total that misses a layer, or adds one of the other field, looks right in every other way."""
    model = tiny_model()
    layers = linears(model.neuron_groups())
    with torch.no_grad():
        layers[FIRST].weight[:3] = 0
        layers[SECOND].weight[:, 5] = 0
        layers["field_coarse.mlp_head.layers.1"].weight[0, 0] = 0
    found = inspected(model, tmp_path)
    fine, coarse = found.field_weights["field_fine"], found.field_weights["field_coarse"]
    biases = sum(layer.bias.numel() for layer in layers.values())
    assert fine.weights + coarse.weights == tiny_parameters(16, 8) - biases
    assert (fine.zeros, fine.dead_rows, fine.dead_columns) == (3 * 63 + 16, 3, 1)
    assert (coarse.zeros, coarse.dead_rows, coarse.dead_columns) == (1, 0, 0)
    for key in ("0.01", "0.05", "0.1"):
        below = [part.below[key] for name, part in found.weights.items() if name.startswith("field_fine")]
        assert fine.below[key] == sum(below) > 0


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([4.0, 1.0, 3.0, 2.0], (1.0, 2.5, 4.0, 0.7)),
        ([5.0, 1.0, 3.0], (1.0, 3.0, 5.0, 6.5 / 9)),
        ([2.0] * 7, (2.0, 2.0, 2.0, 0.5)),
        ([0.0, 6.0, 0.0, 1.0], (0.0, 0.5, 6.0, 1.0)),
        ([3.0], (3.0, 3.0, 3.0, 0.5)),
    ],
)
def test_spread_of_scores_by_hand(scores: list[float], expected: tuple[float, ...]) -> None:
    """How unequal neurons are says what pruning by a score can gain over chance: 0.5 is nothing."""
    part = summarize(torch.tensor(scores))
    assert (part.minimum, part.median, part.maximum, part.top_half_share) == pytest.approx(expected)


def test_layer_without_any_score(tmp_path: Path) -> None:
    """All outgoing weights of a layer may be masked; a share of nothing is no number."""
    assert summarize(torch.zeros(4)).top_half_share is None
    model = tiny_model()
    with torch.no_grad():
        linears(model.neuron_groups())[SECOND].weight.zero_()
    assert "—" in printed(inspected(model, tmp_path))


def test_scores_are_those_of_the_loaded_network(tmp_path: Path) -> None:
    """By hand, from one layer: `w_in` is the mean over the fan-in, without the bias."""
    model = tiny_model()
    layer = linears(model.neuron_groups())[FIRST]
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 17)[:, None].expand(16, 63))
        layer.bias.fill_(1000)
    part = inspected(model, tmp_path).scores["w_in"][FIRST]
    assert (part.minimum, part.median, part.maximum) == pytest.approx((1, 8.5, 16))
    assert part.top_half_share == pytest.approx(sum(range(9, 17)) / sum(range(1, 17)))


def test_diverged_run(tmp_path: Path) -> None:
    """A run that diverged is one that people inspect; it must be said, not end in an error or in a wrong number."""
    model = tiny_model()
    with torch.no_grad():
        linears(model.neuron_groups())[FIRST].weight[0, :2] = torch.tensor([float("nan"), float("inf")])
    path = save_run(tmp_path / "run", model, make_config(tmp_path, tmp_path))
    output = tmp_path / "out.json"
    Inspect(path, output=output, score=("w_in",)).main()
    assert "2 weights are not finite" in printed(inspect_run(path))
    values = json.loads(output.read_text("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert values["weights"][FIRST]["not_finite"] == 2 and values["scores"]["w_in"][FIRST]["maximum"] is None


def long_history() -> Any:
    """A paper-sized network with masks of seven digits, a failed event and uneven widths: the widest tables."""
    model = all_methods["nerf-prune"].pipeline.model.setup(scene_box=SCENE_BOX, num_train_data=1)
    groups = model.neuron_groups()
    sizes = {group.name: group.width for group in groups}
    uneven = {name: width - 100 + i for i, (name, width) in enumerate(sizes.items())}
    masks = {}
    for name, layer in linears(groups).items():
        masks[f"{name}.weight"] = torch.rand_like(layer.weight) < 0.15
    apply_masks(dict(model.named_parameters()), masks)
    quality: dict[str, Any] = {"metrics_before": {"psnr": 31.456}, "metrics_after": {"psnr": 8.1}, "seconds": 1234.5}
    options: dict[str, Any] = {"score": "sensitivity"}
    edges = {name: 12_345_678 for name in sizes}
    plan = [ScheduledEvent(100_000, Fraction(1, 2), sizes), ScheduledEvent(123_456, Fraction(1), uneven, 1)]
    history = [
        PruneEvent(100_000, plan[0], "importance", "continue", options, Sizes(sizes), Sizes(uneven), **quality),
        PruneEvent(110_000, None, "importance", "retrain", options, error="[not finite] " + "reason " * 30),
        PruneEvent(120_000, None, "edge", "continue", {"score": None}, Sizes(edges), Sizes(edges)),
    ]
    model.prune_state = PruneState(
        {name: 10 * size for name, size in sizes.items()}, {"strategy": "edge"}, plan, history, masks
    )
    return model


def test_tables_fit_and_no_number_is_broken(tmp_path: Path) -> None:
    """A cell that is cut or wrapped shows another number than the one that was measured."""
    text = printed(inspected(long_history(), tmp_path))
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 100 and "…" not in text
    rows = [line for line in lines if line.startswith("│")]
    # Only an event takes several lines: strategy and recovery, and the parts of the network.
    continued = [line for line in rows if not line.strip("│ ").startswith(("mlp", "field", "1"))]
    assert all("continue" in line or "retrain" in line or "trunk" in line or "head" in line for line in continued)
    found = inspected(long_history(), tmp_path)
    assert f"{found.total.initial.macs_per_ray:,} → {found.total.now.macs_per_ray:,} (" in text
    costs = found.costs["field_fine.mlp_base.layers.4"]
    row = next(line for line in rows[rows.index(next(x for x in rows if "field_fine" in x)) :] if "layers.4" in line)
    assert f"{costs.initial.macs_per_ray:,} → {costs.now.macs_per_ray:,} │" in row
    for number in ("1234.50 │", "│ 31.46 → 8.10 │", f"trunk {8 * 12_345_678:,} edges ", "fine trunk 256 → 166-173\n"):
        assert number in text


def test_history_names_what_failed(tmp_path: Path) -> None:
    """With `on_error continue` a run may end dense although a cut was planned; the reason is in the checkpoint, and may
    hold brackets, which the console would take for markup."""
    text = " ".join(printed(inspected(long_history(), tmp_path)).split())
    assert "failed" in text and "step 110,000 failed, the model stayed as it was: [not finite] reason" in text


def test_sizes_of_an_event() -> None:
    """Twenty layers in a few lines: equal fields share them, unequal widths are a range, edges are summed."""

    places = {group.name: (group.network, group.role) for group in tiny_model().neuron_groups()}

    def lines(before: dict[str, int], after: dict[str, int], unit: str = "width") -> list[str]:
        event = PruneEvent(0, None, "any", "continue", before=Sizes(before), after=Sizes(after))
        return sizes_lines(event, unit, places)

    start = tiny_widths(16, 8)
    assert lines(start, tiny_widths(4, 2)) == ["trunk 16 → 4", "head 8 → 2"]
    assert lines(start, {**tiny_widths(4, 8), FIRST: 5}) == [
        "coarse trunk 16 → 4",
        "coarse head 8",
        "fine trunk 16 → 4-5",
        "fine head 8",
    ]
    assert lines(start, tiny_widths(8, 4), "edges") == ["trunk 80 → 40 edges", "head 16 → 8 edges"]
    fine = tiny_widths(4, 2, ("fine",))
    assert lines(start, fine) == ["fine trunk 16 → 4", "fine head 8 → 2"]


def test_command(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as typed: the JSON holds what was printed, for those who compare runs by a script."""
    console = Console(width=120, color_system=None, record=True, quiet=False)
    monkeypatch.setattr(showing, "CONSOLE", console)
    output = tmp_path / "new" / "folder" / "out.json"
    with console.capture() as capture:
        Inspect(runs / "cut" / "config.yml", score=("w_in", "sensitivity"), output=output).main()
    text = capture.get()
    assert "Score w_in " in text and "Score sensitivity " in text and str(output) in text
    values = json.loads(output.read_text("utf-8"))
    assert values["total"]["now"]["parameters"] == tiny_parameters(4, 2)
    assert f"{tiny_parameters(16, 8):,} → {tiny_parameters(4, 2):,}" in text
    assert [event["step"] for event in values["history"]] == [2, 5, 8] and values["phase"] == "recovery"
    assert list(values["scores"]) == ["w_in", "sensitivity"]


def test_errors_of_the_options(runs: Path, tmp_path: Path) -> None:
    """A mistyped score has to name the right ones, before a checkpoint is looked for; an output that cannot be
    written is named after the tables were shown."""
    with pytest.raises(ValueError, match=r"^--score must be one of sensitivity, w_in, w_in_w_out, w_out, got 'l1'"):
        inspect_run(runs / "dense" / "config.yml", 77, scores=("l1",))
    with pytest.raises(ValueError, match=r"--score taylor: needs .* one of sensitivity, w_in, w_in_w_out, w_out"):
        inspect_run(runs / "dense" / "config.yml", 77, scores=("w_in", "taylor"))
    with pytest.raises(ValueError, match=r"--output .*: cannot be written"):
        Inspect(runs / "dense" / "config.yml", output=tmp_path).main()
