"""Loading: any widths into any widths, and nothing changed when something is wrong."""

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from support.fuzz import nested
from support.tiny_run import (
    copied_state,
    paper_model,
    rays,
    same_bits,
    shrink,
    start,
    tiny_model,
    tiny_widths,
    train,
    widths,
)

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.nerf.model import PruneModel

CUT = {**tiny_widths(9, 5), "field_coarse.mlp_base.layers.1": 4, "field_fine.mlp_base.layers.4": 7}


def pruned_state() -> dict[str, Any]:
    """Checkpoint of a tiny model of uneven widths that went through an event."""
    torch.manual_seed(1)
    model = shrink(tiny_model(), CUT)
    scheduled = ScheduledEvent(3, Fraction(1), dict(CUT))
    model.prune_state.initial_sizes = tiny_widths(16, 8)
    model.prune_state.plan = [scheduled, ScheduledEvent(7, Fraction(1), tiny_widths(3, 2), 1)]
    model.prune_state.history = [PruneEvent(3, scheduled, "coreset", "continue", metrics_after={"psnr": 20.0})]
    return copied_state(model)


def linears_of(model: PruneModel) -> list[torch.nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


def test_pruned_checkpoint_resizes_a_full_model_in_place() -> None:
    """The host builds optimizers before it loads, so the parameters must stay the same objects while their sizes
    change; values, pruning state and the outputs are then those of the saved network."""
    saved = pruned_state()
    source = shrink(tiny_model(), CUT)
    source.load_state_dict(saved)
    model = tiny_model()
    before = dict(model.named_parameters())
    optimizer = torch.optim.RAdam(model.get_param_groups()["fields"])
    model.load_state_dict(saved)
    after = dict(model.named_parameters())
    assert list(before) == list(after) and all(before[name] is after[name] for name in before)
    assert widths(model) == CUT
    assert same_bits(copied_state(model), saved)
    assert all((layer.out_features, layer.in_features) == layer.weight.shape for layer in linears_of(model))
    assert (model.field_fine.mlp_base.get_out_dim(), model.field_fine.field_output_density.in_dim) == (7, 7)
    with torch.no_grad():
        assert torch.equal(model.eval()(rays(8))["rgb"], source.eval()(rays(8))["rgb"])
    model.train()(rays(8))["rgb"].sum().backward()
    optimizer.step()  # fails if a gradient or a parameter kept the old shape
    assert model.prune_state.phase == "pruning" and model.prune_state.history[0].metrics_after == {"psnr": 20.0}


def test_full_checkpoint_widens_a_pruned_model() -> None:
    """Going back to an earlier, unpruned step with `--load-step` is the way out of a failed experiment; loading has to
    work in both directions."""
    saved = copied_state(tiny_model())
    model = shrink(tiny_model(), CUT)
    model.load_state_dict(saved)
    assert widths(model) == tiny_widths(16, 8)
    assert same_bits(copied_state(model), saved)


def test_stock_state_dict_loads(stock_state: dict[str, Any]) -> None:
    """Users have finished `vanilla-nerf` runs; their state dict carries the metric network and no pruning state, and
    its widths become the initial ones."""
    model = paper_model()
    model.prune_state.initial_sizes = {"left": 1}
    model.load_state_dict(stock_state)
    assert model.prune_state.initial_sizes == {} and model.prune_state.history == []
    assert all(torch.equal(model.state_dict()[k], v) for k, v in stock_state.items() if not k.startswith("lpips."))


def test_stock_run_goes_on_and_is_pruned(tiny_config: Callable[..., Any], stock_lpips: None, tmp_path: Any) -> None:
    """The promise of the README in full: a run of the host's own method is resumed with `nerf-prune` from its
    checkpoint, moments included, and pruned; its widths count as the initial ones."""
    stock = tiny_config("stock")
    plain = deepcopy(all_methods["vanilla-nerf"].pipeline)
    plain.datamanager, stock.method_name = stock.pipeline.datamanager, "vanilla-nerf"
    plain.model.num_coarse_samples = plain.model.num_importance_samples = 4
    stock.pipeline, stock.max_num_iterations = plain, 2
    first = train(stock)
    assert any(key.startswith("_model.lpips.") for key in first.pipeline.state_dict())

    config = tiny_config("pruned", pruning_ratio=0.75, start_step=2)
    config.load_dir, config.max_num_iterations = first.checkpoint_dir, 2
    for name in ("base_mlp_num_layers", "base_mlp_layer_width", "head_mlp_layer_width", "skip_connections"):
        setattr(config.pipeline.model, name, getattr(all_methods["nerf-prune"].pipeline.model, name))
    trainer = train(config)
    model = trainer.pipeline.model
    assert set(widths(model).values()) == {64, 32}
    assert set(model.prune_state.initial_sizes.values()) == {256, 128}
    assert {float(state["step"]) for state in trainer.optimizers.optimizers["fields"].state.values()} == {4.0}
    check_optimizers(trainer.optimizers.optimizers, trainer.optimizers.parameters, model.get_param_groups())


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for key in keys:
            del state[key]

    return change


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value})


def replace_all(entries: dict[Any, Any]) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state.clear()
        state.update(entries)

    return change


def edit(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["_extra_state"].update(entries)


class OwnTensor(torch.Tensor):
    """What `weights_only` lets through may still be of another class."""


WEIGHT, BIAS = "field_fine.mlp_base.layers.3.weight", "field_fine.mlp_base.layers.3.bias"
BAD_CHECKPOINTS: dict[str, tuple[Callable[[dict[str, Any]], None], list[str]]] = {
    "fewer layers": (
        drop(WEIGHT, BIAS),
        ["not one of this network", f"2 missing entries ({BIAS}, {WEIGHT})", "model.base_mlp_num_layers"],
    ),
    "more layers": (
        put("field_fine.mlp_base.layers.5.weight", torch.zeros(9, 9)),
        ["not one of this network", "1 unknown entries (field_fine.mlp_base.layers.5.weight)"],
    ),
    "another method": (
        replace_all({"device_indicator_param": torch.empty(0), "field.mlp.params": torch.zeros(5)}),
        ["not one of this network", "36 missing entries", "1 unknown entries (field.mlp.params)", "vanilla-nerf"],
    ),
    "columns of another width": (
        put(WEIGHT, torch.zeros(9, 16)),
        ["do not form a network", f"{WEIGHT} has shape (9, 16), expected (9, 9)"],
    ),
    "bias of another width": (put(BIAS, torch.zeros(4)), [f"{BIAS} has shape (4,), expected (9,)"]),
    "one neuron more than is read": (
        put(WEIGHT, torch.zeros(10, 9)),
        [f"{BIAS} has shape (9,), expected (10,)", "do not form a network"],
    ),
    "no matrix": (put(WEIGHT, torch.zeros(9)), ["field_fine.mlp_base.layers.3.weight is (9,), expected a matrix"]),
    "no neurons": (put(WEIGHT, torch.zeros(0, 9)), ["layers.3.weight is (0, 9), expected a matrix"]),
    "no tensor": (put(WEIGHT, "text"), ["layers.3.weight is str, expected a matrix"]),
    "no tensor at the output": (
        put("field_fine.field_heads.0.net.bias", None),
        ["field_fine.field_heads.0.net.bias has shape NoneType, expected (3,)"],
    ),
    "outputs of another width": (
        put("field_fine.field_heads.0.net.weight", torch.zeros(4, 5)),
        ["field_fine.field_heads.0.net.weight has shape (4, 5), expected (3, 5)"],
    ),
    "newer pruning state": (edit(format_version=99), ["format version 99", "reads up to 2"]),
    "no pruning state": (put("_extra_state", {}), ["format version None", "reads up to 2"]),
    "damaged pruning state": (lambda state: state["_extra_state"].pop("history"), ["cannot be read", "history"]),
    "damaged history": (
        edit(history=[{"scheduled": None, "before": {}, "after": {}, "stop": 3}]),
        ["cannot be read: history[0]", "unknown field", "'stop'"],
    ),
    "history without sizes": (
        edit(history=[{"scheduled": None, "step": 3}]),
        ["cannot be read: history[0]", "strategy"],
    ),
    "groups of another network": (
        edit(initial_sizes={"field_fine.mlp_base.layers.0": 16}),
        ["names 1 groups of neurons, among them field_fine.mlp_base.layers.0", "expected the network's 14"],
    ),
    "mask of another shape": (
        edit(masks={WEIGHT: torch.ones(9, 16, dtype=torch.bool)}),
        [f"mask of {WEIGHT} has shape (9, 16), expected (9, 9)"],
    ),
    "mask of nothing": (
        edit(masks={"elsewhere": torch.ones(2, dtype=torch.bool)}),
        ["mask of elsewhere has shape (2,), expected None"],
    ),
    "sparse weight": (
        lambda state: state.update({WEIGHT: state[WEIGHT].to_sparse()}),
        [f"{WEIGHT}: expected a dense tensor, got one that is torch.sparse_coo"],
    ),
    "quantized weight": (
        lambda state: state.update({WEIGHT: torch.quantize_per_tensor(state[WEIGHT], 0.1, 0, torch.qint8)}),
        [f"{WEIGHT}: expected a dense tensor, got one that is quantized"],
    ),
    "weight without values": (
        lambda state: state.update({WEIGHT: state[WEIGHT].to("meta")}),
        [f"{WEIGHT}: expected a dense tensor"],
    ),
    "weight of whole numbers": (
        put(WEIGHT, torch.ones(9, 9, dtype=torch.int64)),
        [f"{WEIGHT}: expected torch.float32 or"],
    ),
    "complex weight": (put(WEIGHT, torch.ones(9, 9) * 1j), [f"{WEIGHT}: expected torch.float32 or", "torch.complex64"]),
    "weight that is not finite": (
        put(WEIGHT, torch.full((9, 9), float("nan"))),
        [f"{WEIGHT}: 81 of 81 values are not finite"],
    ),
    "weight that repeats one number": (
        put(WEIGHT, torch.zeros(1).expand(9, 9)),
        [f"{WEIGHT}: a tensor of shape (9, 9) takes 324 bytes, and the file holds 4 of it"],
    ),
    "width that the file does not hold": (
        lambda state: state.update(
            {key: torch.zeros(1).expand(40_000, 63) for key in state if key.endswith("base.layers.0.weight")}
        ),
        ["a tensor of shape (40000, 63) takes 10,080,000 bytes, and the file holds 4 of it"],
    ),
    "weights in one memory": (
        lambda state: state.update({WEIGHT.replace("3", f"{i}"): state[WEIGHT] for i in (1, 3)}),
        ["the checkpoint's network: ", " tensors take", "and the file holds"],
    ),
    "weight of a class of its own": (
        put(WEIGHT, torch.zeros(9, 9).as_subclass(OwnTensor)),
        [f"{WEIGHT}: expected a tensor, got OwnTensor"],
    ),
    "entry without a name": (replace_all({3: torch.zeros(1)}), ["1 unknown entries (3)"]),
    "mask that is no tensor": (
        edit(masks={WEIGHT: [[True] * 9] * 9}),
        [f"mask of {WEIGHT}: expected a tensor, got list"],
    ),
    "deep options": (edit(options=nested()), ["cannot be read", "nested more deeply"]),
    "options of the wrong type": (edit(options={"width": "8"}), ["pruning options: prune.width", "got '8'"]),
    "options that are none": (edit(options={"schedule": "x"}), ["prune.schedule", "one-shot", "got 'x'"]),
    "group of options that is none": (edit(options={"teacher": 3}), ["prune.teacher"]),
    "given options of the wrong type": (edit(given={"refit": "edge"}), ["prune.refit", "got 'edge'"]),
    "event with options of the wrong type": (
        lambda state: state["_extra_state"]["history"][0].update(options={"recovery_lr_factor": "2"}),
        ["prune.recovery_lr_factor", "got '2'"],
    ),
    "fewer neurons at first than there are": (
        lambda state: state["_extra_state"]["initial_sizes"].update({WEIGHT.removesuffix(".weight"): 8}),
        ["says that field_fine.mlp_base.layers.3 had 8 neurons at first, and it has 9"],
    ),
    "plan that leaves nothing": (
        lambda state: state["_extra_state"]["plan"][1]["targets"].update({WEIGHT.removesuffix(".weight"): 0}),
        ["plan leaves 0 neurons of field_fine.mlp_base.layers.3 at step 7; expected at least 1 and at most"],
    ),
    "plan of another network": (
        lambda state: state["_extra_state"]["plan"][1]["targets"].update({"elsewhere": 4}),
        ["plan leaves 4 neurons of elsewhere at step 7"],
    ),
    "snapshot of some parameters": (
        edit(rewind_snapshot={BIAS: torch.zeros(9)}),
        ["rewind snapshot lacks 35 parameters", "field_coarse"],
    ),
    "snapshot of another shape": (
        edit(rewind_snapshot={BIAS: torch.zeros(16)}),
        [f"rewind snapshot of {BIAS} has shape (16,), expected (9,)"],
    ),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_checkpoint_is_refused_and_changes_nothing(case: str) -> None:
    """A checkpoint that is loaded by half is worse than none: the run goes on with random layers and nobody sees it.
    Every defect must be found before the first parameter is touched, and the message must name it."""
    damage, messages = BAD_CHECKPOINTS[case]
    saved = pruned_state()
    damage(saved)
    model = tiny_model()
    model.prune_state.initial_sizes = {"own": 1}
    before, parameters = copied_state(model), dict(model.named_parameters())
    with pytest.raises(ValueError) as caught:
        model.load_state_dict(saved)
    assert [part for part in messages if part not in str(caught.value)] == []
    assert same_bits(copied_state(model), before)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())


def test_every_type_of_floats_is_taken() -> None:
    """Weights that were saved in half or double precision become those of the model; a network that is only looked at
    may even have some that are no numbers."""
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        saved = pruned_state()
        saved[WEIGHT] = saved[WEIGHT].to(dtype)
        model = tiny_model()
        model.load_state_dict(saved)
        found = model.state_dict()[WEIGHT]
        assert found.dtype == torch.float32 and torch.equal(found, saved[WEIGHT].float())
    saved[WEIGHT] = torch.full((9, 9), float("nan"))
    model.take_up(saved, finite=False)
    assert bool(model.state_dict()[WEIGHT].isnan().all())


def test_history_that_a_run_cannot_go_on_from(tiny_config: Callable[..., Any]) -> None:
    """Rates after an event follow from its step and from what it said of rates: one that lies ahead, or a factor below
    zero, would train with negative rates. The network can still be looked at."""
    first = train(tiny_config("first", start_step=3))
    path = first.checkpoint_dir / "step-000000009.ckpt"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"step": 10}, "history has an event at step 10, and the run goes on at step 10"),
        (
            {"scheduled": None, "options": {"recovery_lr_factor": -1.0}},
            "event at step 3: prune.recovery_lr_factor must be",
        ),
    ]
    for values, message in changes:
        content = torch.load(path)
        content["pipeline"]["_model._extra_state"]["history"][0].update(values)
        torch.save(content, path)
        config = tiny_config("second")
        config.load_dir = first.checkpoint_dir
        with pytest.raises(ValueError) as caught:
            start(config)
        assert message in str(caught.value)
        content["pipeline"]["_model._extra_state"]["history"][0]["step"] = 3
        torch.save(content, path)


def test_host_does_not_retry_what_was_refused(tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The host answers a RuntimeError with a second, non-strict attempt that hides missing layers; the error must reach
    the user through `load_pipeline`, after one attempt."""
    pipeline = tiny_config().pipeline.setup(device="cpu")
    attempts: list[Any] = []
    inner = PruneModel.load_state_dict

    def spy(model: PruneModel, state: Any, strict: bool = True, assign: bool = False) -> Any:
        attempts.append(strict)
        return inner(model, state, strict, assign)

    monkeypatch.setattr(PruneModel, "load_state_dict", spy)
    saved = pruned_state()
    drop(WEIGHT)(saved)
    before = copied_state(pipeline.model)
    with pytest.raises(ValueError, match="1 missing entries"):
        pipeline.load_pipeline({f"_model.{key}": value for key, value in saved.items()}, 5)
    assert attempts == [True]
    assert same_bits(copied_state(pipeline.model), before)


def test_checkpoint_loads_through_the_pipeline_also_from_a_distributed_run(tiny_config: Callable[..., Any]) -> None:
    """Stock runs on several GPUs save every key behind `module.`; the host strips it, and what is left must load."""
    pipeline = tiny_config().pipeline.setup(device="cpu")
    saved = pruned_state()
    pipeline.load_pipeline({f"_model.module.{key}": value for key, value in saved.items()}, 5)
    assert widths(pipeline.model) == CUT


def test_moments_of_another_network_are_refused(tiny_config: Callable[..., Any]) -> None:
    """`Optimizer.load_state_dict` takes moments of any shape and fails at the next step with a message about tensor
    sizes; a run whose moments do not fit its network has to stop before it trains."""
    first = train(tiny_config("first", start_step=3))
    path = first.checkpoint_dir / "step-000000009.ckpt"
    content = torch.load(path)
    content["optimizers"]["fields"]["state"][0]["exp_avg"] = torch.zeros(16, 63)
    torch.save(content, path)
    config = tiny_config("second")
    config.load_dir = first.checkpoint_dir
    with pytest.raises(ValueError) as caught:
        start(config)
    assert "'exp_avg' of parameter 0 in optimizer 'fields' has shape (16, 63), expected (8, 63)" in str(caught.value)


@pytest.mark.parametrize("saved_with", [True, False])
def test_temporal_distortion_is_named(saved_with: bool) -> None:
    """Its entries are a dozen names that say nothing of an option; the option is said, and its value."""
    saved = copied_state(tiny_model(enable_temporal_distortion=saved_with))
    with pytest.raises(ValueError, match=f"with --pipeline.model.enable-temporal-distortion {saved_with}"):
        tiny_model(enable_temporal_distortion=not saved_with).load_state_dict(saved)
