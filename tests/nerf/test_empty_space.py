"""When empty space is looked at and skipped: in training, in views, around cuts, across checkpoints."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RaySamples
from support.tiny_run import (
    after_each_step,
    checkpoint,
    copied_state,
    rays,
    resume,
    same_bits,
    start,
    tiny_model,
    train,
)
from torch import Tensor

from nerfstudio_prune.nerf.empty_space import EmptySpace, GridOptions, Space, pieces_of_rays, reached_box
from nerfstudio_prune.nerf.field import PruneField
from nerfstudio_prune.nerf.model import PruneModel, PruneModelConfig
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.occupancy import OccupancyGrid, grids_from_dict, grids_to_dict

Config = Callable[..., Any]
CPU = torch.device("cpu")
SOON = {"occupancy_warm_up_steps": 3, "occupancy_update_interval": 4, "alpha_thre": 0.27}


def skipping(config: Any, **options: Any) -> Any:
    """A run of ten steps that looks before the steps 3 and 7."""
    for name, value in {**SOON, **options}.items():
        setattr(config.pipeline.model, name, value)
    return config


def density(positions: Tensor) -> Tensor:
    return 100.0 * (positions.norm(dim=1) < 0.5)


def space(warm_up: int = 3, interval: int = 4) -> EmptySpace:
    found = EmptySpace({"field_fine": GridOptions(16, 1.0)}, warm_up, interval)
    found.space = cube(2.0)
    return found


def cube(half: float) -> Space:
    """A cube around the origin, without places on rays."""
    return Space(torch.tensor([[-half] * 3, [half] * 3]), torch.zeros(0, 0, 2, 3))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of all looks at densities for training, in order."""
    seeds: list[int] = []
    inner = EmptySpace.look

    def look(self: EmptySpace, densities: Any, seed: int, device: torch.device) -> None:
        seeds.append(seed)
        inner(self, densities, seed, device)

    monkeypatch.setattr(EmptySpace, "look", look)
    return seeds


def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of a field, whether a grid was in force."""
    calls: list[bool] = []
    inner = PruneField.forward

    def forward(self: PruneField, ray_samples: RaySamples, *arguments: Any) -> Any:
        calls.append(self.occupancy is not None)
        return inner(self, ray_samples, *arguments)

    monkeypatch.setattr(PruneField, "forward", forward)
    return calls


def test_looks_are_due_from_the_warm_up_on_in_intervals() -> None:
    """What was empty must be able to come back; before the warm-up a field shows nothing yet, and a run that begins in
    between, from a checkpoint of another method, looks at once. The first interval has more of them: the fog of a new
    field clears long before it is over, and each step in it costs many later ones."""
    found = space()
    assert [step for step in range(20) if found.due(step)] == list(range(3, 20))
    found.look({"field_fine": density}, 0, CPU)
    assert [step for step in range(20) if found.due(step)] == [3, 4, 5, 7, 11, 15, 19]
    longer = EmptySpace(found.options, 60, 400)
    longer.look({"field_fine": density}, 0, CPU)
    assert [step for step in range(1300) if longer.due(step)] == [60, 110, 160, 260, 460, 860, 1260]


def test_a_scene_that_shows_nothing_yet_is_not_skipped() -> None:
    """A grid without an occupied cell would be the end of the training: nothing would ever be evaluated again."""
    found = space()
    found.look({"field_fine": lambda positions: torch.zeros(len(positions))}, 0, CPU)
    # The next look is that of the plan, and not one before each step.
    assert found.training == {} and [step for step in range(9) if found.due(step)] == [3, 4, 5, 7]
    model = tiny_model()
    model.empty_space.space = cube(4.0)
    with torch.no_grad():
        for own in model.fields().values():
            own.field_output_density.net.bias.fill_(-30.0)
    model.look(0)
    assert model.empty_space.training == {} and model.empty_space.looked
    assert model.eval().get_outputs_for_camera_ray_bundle(rays(2, 2))["rgb"].shape == (2, 2, 3)


def test_a_look_goes_on_with_what_is_known_until_the_network_is_another() -> None:
    """The whole space is looked at once; later looks cost a fraction. A cut network is another one, and what was known
    of the one before must not decide where it is looked at."""
    asked: list[int] = []

    def counted(positions: Tensor) -> Tensor:
        asked.append(len(positions))
        return density(positions)

    def look(seed: int) -> int:
        asked.clear()
        found.look({"field_fine": counted}, seed, CPU)
        return sum(asked)

    found = space()
    whole, again, third = (look(seed) for seed in range(3))
    assert again < whole / 2 and third < whole / 2
    found.forget()
    assert look(3) > whole / 2 and found.looked


def test_a_look_goes_on_alike_with_grids_of_a_checkpoint() -> None:
    """A resumed run is the uninterrupted one bit for bit: what a look rests on is in the checkpoint."""
    found, resumed = space(), space()
    found.look({"field_fine": density}, 0, CPU)
    resumed.training = grids_from_dict(grids_to_dict(found.training))
    for each in (found, resumed):
        each.look({"field_fine": lambda positions: density(positions - 0.03)}, 1, CPU)
    a, b = (grids_to_dict(each.training) for each in (found, resumed))
    assert same_bits(a, b) and 0.1 < found.training["field_fine"].occupancy < 0.9


def test_a_look_that_fails_leaves_everything_to_be_evaluated() -> None:
    """After a cut an error of a hook is told and the training goes on: with the grids of the network before, if they
    stayed."""
    found = space()
    found.look({"field_fine": density}, 0, CPU)
    assert found.training
    with pytest.raises(ZeroDivisionError):
        found.look({"field_fine": lambda positions: positions[:, 0] / (1 // 0)}, 0, CPU)
    assert found.training == {}


def test_the_density_is_asked_where_the_model_lives() -> None:
    """Views and their cameras live on the CPU, the network on a GPU."""
    asked = set()

    def density_fn(positions: Tensor) -> Tensor:
        asked.add(positions.device.type)
        raise StopIteration

    found = space()
    found.space = Space(cube(2.0).box, torch.zeros(1, 1, 2, 3))
    with pytest.raises(StopIteration):
        found.look({"field_fine": density_fn}, 0, torch.device("meta"))
    assert asked == {"meta"}


def test_pieces_of_rays_lie_on_rays_of_the_views() -> None:
    """Places beside the rays would be looked at for nothing, and all of one view's would miss what others show."""
    poses = torch.eye(4)[:3].repeat(3, 1, 1)
    poses[:, :, 3] = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    cameras = Cameras(poses, fx=20.0, fy=20.0, cx=8.0, cy=6.0, height=12, width=16)
    pieces = pieces_of_rays(cameras, torch.tensor([1.0, 2.0, 4.0]))
    assert pieces.shape == (4096, 2, 2, 3)
    view = (pieces[:, 0, 0, 0] / 100).round()
    assert all(1000 < int((view == i).sum()) < 1700 for i in range(3))
    offsets = pieces - poses[view.long(), None, None, :, 3]
    torch.testing.assert_close(offsets.norm(dim=-1), torch.tensor([[1.0, 2.0], [2.0, 4.0]]).expand(4096, 2, 2))
    # No ray leaves the image: half of 16 pixels to the side at a focal length of 20.
    assert float((offsets[..., 0] / offsets[..., 2]).abs().max()) <= 0.4 + 1e-4


def test_photographs_of_runs_of_earlier_versions_are_not_skipped() -> None:
    """Their configurations do not name the option; a picture must be what it was."""
    for contracted in (True, False):
        config = PruneModelConfig(use_scene_contraction=contracted)
        state = {name: value for name, value in vars(config).items() if name != "skip_empty_space"}
        old = PruneModelConfig.__new__(PruneModelConfig)
        old.__setstate__(state)
        assert old.skip_empty_space is not contracted


def test_grids_for_evaluation_are_made_once_for_each_state_of_the_weights() -> None:
    """A view is one of many; building a grid takes as long as rendering one."""
    found, calls = space(), []

    def counted(positions: Tensor) -> Tensor:
        calls.append(len(positions))
        return density(positions)

    first = found.for_evaluation({"field_fine": counted}, "a", CPU)
    built = len(calls)
    assert found.for_evaluation({"field_fine": counted}, "a", CPU) is first and len(calls) == built > 0
    assert found.for_evaluation({"field_fine": counted}, "b", CPU) is not first and len(calls) > built


def test_weights_that_change_in_any_way_give_another_grid() -> None:
    """Version counters do not see assignments to `data`, which undo and loading use; a stale grid hides what is new."""
    model = tiny_model()
    states = [model._weights()]
    weight: Any = linears(model.neuron_groups())["field_fine.mlp_base.layers.1"].weight
    with torch.no_grad():
        weight[0, 0] += 1e-3
    states.append(model._weights())
    weight.data = weight.data.clone()
    assert model._weights() == states[-1]
    weight.data[0, 0] += 1e-3
    states.append(model._weights())
    assert len(set(states)) == 3


def test_the_space_that_rays_reach_holds_their_ends() -> None:
    """A box that leaves out a corner of a view hides what stands in it."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.eye(4)[:3].repeat(5, 1, 1)
    poses[:, :, 3] = torch.rand(5, 3, generator=generator)
    poses[:, :, :3] = torch.linalg.qr(torch.randn(5, 3, 3, generator=generator))[0]
    cameras = Cameras(poses, fx=20.0, fy=20.0, cx=8.0, cy=6.0, height=12, width=16)
    box = reached_box(cameras, 5.0)
    for i in range(5):
        bundle = cameras.generate_rays(i)
        for distance in (0.0, 2.0, 5.0):
            places = bundle.origins + distance * bundle.directions
            assert bool((places >= box[0] - 1e-4).all()) and bool((places <= box[1] + 1e-4).all())
    assert bool((box[1] - box[0] < 12).all())


def test_training_skips_after_the_warm_up(
    tiny_config: Config, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four looks in ten steps: at the end of the warm-up, after a quarter and a half of the first interval, and at the
    end of it; each step from the first one on uses what they saw."""
    calls = evaluated(monkeypatch)
    config = skipping(tiny_config("run", strategy="none"))
    trainer = start(config)
    trainer.train()
    assert len(looks) == 4 and len(set(looks)) == 4
    # Both fields in each of ten steps.
    assert calls == [False] * 6 + [True] * 14


def test_a_resumed_run_is_the_uninterrupted_one(tiny_config: Config) -> None:
    """The grid is older than the checkpoint's weights and cannot be made again from them: it has to be saved. Saved at
    steps right before, right after and between the looks."""
    for save_at in (5, 6, 7):
        config = skipping(tiny_config(f"whole-{save_at}", start_step=4))
        config.steps_per_save, config.save_only_latest_checkpoint = save_at, False
        whole = train(config, same_noise=True)
        saved = checkpoint(whole, save_at)["pipeline"]["_model._extra_state"]
        assert set(saved["occupancy"]) == {"field_coarse", "field_fine"}
        again = skipping(tiny_config(f"resumed-{save_at}", preset=None))
        trainer = start(resume(again, whole, save_at, 10 - save_at - 1), same_noise=True)
        loaded = trainer.pipeline.model.empty_space.training
        assert same_bits({name: grid.to_dict() for name, grid in loaded.items()}, saved["occupancy"])
        trainer.train()
        a, b = (checkpoint(t, 9) for t in (whole, trainer))
        for part in ("pipeline", "optimizers"):
            assert same_bits(_without_times(a[part]), _without_times(b[part]))


def _without_times(value: Any) -> Any:
    """What a checkpoint holds, without seconds that something took and notes of the plan's origin."""
    if isinstance(value, dict):
        left_out = {"_model._extra_state"}
        kept = {key: _without_times(item) for key, item in value.items() if key not in left_out}
        extra = value.get("_model._extra_state")
        return {**kept, "occupancy": extra["occupancy"]} if extra else kept
    return value


def test_switched_off_it_is_as_if_it_were_not_there(tiny_config: Config) -> None:
    """Nor do batches and random numbers change where it is switched on: until the first look both runs have the same
    bits, and the state of the random numbers is the same at the end."""
    ends, states, earlier = [], [], []
    for name, options in (
        ("off", {"skip_empty_space": False}),
        ("never", {"occupancy_warm_up_steps": 99}),
        ("on", {"alpha_thre": 0.32}),
    ):
        trainer = start(skipping(tiny_config(name, strategy="none"), **options))
        third: list[Any] = []
        after_each_step(trainer, lambda step, t=trainer, found=third: found.append(_copy(t)) if step == 2 else None)
        trainer.train()
        ends.append(_copy(trainer))
        states.append(torch.get_rng_state())
        earlier.append(third[0])
    assert same_bits(ends[0], ends[1]) and not same_bits(ends[0], ends[2])
    assert same_bits(earlier[0], earlier[2])
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def _copy(trainer: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.pipeline.model.named_parameters()}


def test_a_cut_and_an_undo_are_looked_at_at_once(tiny_config: Config, looks: list[int]) -> None:
    """The grid of the network before would hide what the cut one shows elsewhere."""
    trainer = start(skipping(tiny_config("run", start_step=4), occupancy_update_interval=100))
    trainer.train()
    assert len(looks) == 2 and trainer.pipeline.model.prune_state.history[0].step == 4


def test_a_view_skips_and_measured_rays_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is judged on rays, and its calibration rests on them: a grid that is older than the cut must not decide
    there. Pictures are what takes long."""
    torch.manual_seed(0)
    model = tiny_model(alpha_thre=0.27).eval()
    model.empty_space.space = cube(4.0)
    calls = evaluated(monkeypatch)
    with torch.no_grad():
        model(rays(16))
    assert calls == [False, False]
    model.get_outputs_for_camera_ray_bundle(rays(4, 4))
    assert calls[2:] == [True, True]
    model.config.skip_empty_space = False
    model.get_outputs_for_camera_ray_bundle(rays(4, 4))
    assert calls[4:] == [False, False]


def test_pictures_within_a_training_use_its_grids_and_later_ones_fresh_ones(tiny_config: Config) -> None:
    """A viewer asks for a frame after every step, and a look takes longer than that. What is measured in the end, and
    by `ns-eval` later, must be of the last weights: a checkpoint's grids are older."""
    trainer = start(skipping(tiny_config("run", strategy="none")))
    model = trainer.pipeline.model
    used: list[Any] = []

    def picture(step: int) -> None:
        made = model.empty_space.for_evaluation
        model.empty_space.for_evaluation = lambda *arguments: used.append(step) or made(*arguments)
        model.eval().get_outputs_for_camera_ray_bundle(rays(2, 2))
        model.empty_space.for_evaluation = made
        model.train()

    after_each_step(trainer, picture)
    trainer.train()
    picture(99)
    assert used == [99]
    later = start(resume(skipping(tiny_config("later")), trainer, 9, 1)).pipeline.model.eval()
    assert later.empty_space.training and not later.empty_space.in_training
    shown, end = (each.get_outputs_for_camera_ray_bundle(rays(2, 2))["rgb"] for each in (later, model.eval()))
    assert torch.equal(shown, end)


def test_grids_of_a_checkpoint_are_not_used_where_skipping_is_off(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who switches it off wants to see, and train, everything."""
    whole = train(skipping(tiny_config("whole", strategy="none")))
    calls = evaluated(monkeypatch)
    trainer = train(resume(skipping(tiny_config("off"), skip_empty_space=False), whole, 9, 2))
    trainer.pipeline.model.eval().get_outputs_for_camera_ray_bundle(rays(2, 2))
    assert trainer.pipeline.model.empty_space.training and len(calls) >= 6 and not any(calls)


def test_a_model_with_other_fields_looks_for_itself() -> None:
    """A preview of a cut shows the network as cut; with the grid of the dense one what is new would be missing."""
    torch.manual_seed(0)
    model = tiny_model(alpha_thre=0.27).eval()
    model.empty_space.space = cube(4.0)
    model.look(0)
    other = model.with_fields({name: deepcopy(own) for name, own in model.fields().items()})
    assert model.empty_space.training and not other.empty_space.training
    assert other.empty_space.space is model.empty_space.space


def test_a_picture_with_skipping_is_the_picture_without() -> None:
    """On a field that is sharp: a solid ball before nothing, made by hand. What is skipped is what nobody sees."""
    torch.manual_seed(0)
    model = tiny_model(num_coarse_samples=64, num_importance_samples=32, grid_resolution=64).eval()
    model.empty_space.space = cube(4.0)
    for own in (model.field_coarse, model.field_fine):
        _make_ball(own)
    with torch.no_grad():
        full = model(rays(12, 12).flatten())["rgb"].view(12, 12, 3)
    skipped = model.get_outputs_for_camera_ray_bundle(rays(12, 12))["rgb"]
    assert 0.1 < float((full - 1).abs().amax(dim=-1).gt(0.05).float().mean()) < 0.95
    assert float((full - skipped).square().mean()) < 1e-5


def test_the_fine_field_alone_shows_the_same_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spaced samples between a ray's entry into the occupied box and its exit give the picture that many samples
    along the whole ray give, and the coarse field is not asked. Rays that miss the box show the background."""
    torch.manual_seed(0)
    size = {"num_coarse_samples": 64, "num_importance_samples": 64, "grid_resolution": 64}
    model = tiny_model(**size, fine_field_only=True).eval()
    model.empty_space.space = cube(4.0)
    _make_ball(model.field_fine)
    _make_ball(model.field_coarse)
    asked = evaluated(monkeypatch)
    alone = model.get_outputs_for_camera_ray_bundle(rays(12, 12))
    assert asked == [True]
    model.config.fine_field_only = False
    model.sampler_uniform.num_samples = 1024
    with torch.no_grad():
        full = model(rays(12, 12).flatten())
    for name in ("rgb", "accumulation", "depth"):
        assert torch.equal(alone[name], alone[f"{name}_fine"]) and torch.equal(alone[name], alone[f"{name}_coarse"])
        expected, found = (x.view(12, 12, -1) for x in (full[f"{name}_fine"], alone[name]))
        met = (full["accumulation_fine"].view(12, 12, 1) > 0.99).expand_as(expected)
        assert float((found - expected)[met].abs().mean()) < 0.03
    missed = full["accumulation_fine"].view(12, 12) < 1e-6
    assert 5 < int(missed.sum()) < 140 and bool((alone["rgb"][missed] > 0.999).all())


def _make_ball(own: PruneField) -> None:
    """Replaces the density head by one that is dense in a ball, whatever the trunk says."""
    own.density_at = lambda positions: 60.0 * torch.sigmoid(80 * (0.4 - positions.norm(dim=-1)))  # type: ignore[method-assign]
    inner = own._embedding

    def embedding(positions: Tensor) -> Tensor:
        own.field_output_density = lambda _: own.density_at(positions)[:, None]  # type: ignore[assignment]
        return inner(positions)

    del own.field_output_density
    own._embedding = embedding  # type: ignore[method-assign]


@pytest.mark.parametrize("wrong", [{"field_fine": {}}, {"field_fine": 3}, 5])
def test_a_broken_grid_in_a_checkpoint_is_refused(wrong: Any) -> None:
    """What a file says is checked before anything of it is taken up."""
    model: PruneModel = tiny_model()
    before = copied_state(model)
    state: Any = {
        name: value + 1 if isinstance(value, Tensor) else value for name, value in copied_state(model).items()
    }
    state["_extra_state"]["occupancy"] = wrong
    with pytest.raises(ValueError, match="occupancy"):
        model.load_state_dict(state)
    assert same_bits(before, copied_state(model))


def test_grids_survive_a_checkpoint_on_disk(tiny_config: Config) -> None:
    """`torch.load` takes plain types only; the grid is made of those."""
    trainer = train(skipping(tiny_config("run", strategy="none")))
    saved = checkpoint(trainer, 9)["pipeline"]["_model._extra_state"]["occupancy"]
    own = trainer.pipeline.model.empty_space.training
    for name, grid in own.items():
        assert torch.equal(OccupancyGrid.from_dict(saved[name]).cells, grid.cells)
