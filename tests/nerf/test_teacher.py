"""Recovery with the dense network as a teacher."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from typing import Any

import pytest
import torch
import tyro
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils import writer
from support.tiny_plan import updated
from support.tiny_run import (
    after_each_step,
    before_each_step,
    checkpoint,
    copied_state,
    rays,
    resume,
    same_bits,
    shrink,
    start,
    tiny_model,
    tiny_widths,
    train,
    widths,
)

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.teacher.config import TeacherConfig, TeacherRecipe
from nerfstudio_prune.nerf.teacher.distillation import POINT_FLOOR, FieldValues, alpha_of, point_loss, spread
from nerfstudio_prune.nerf.teacher.extra_rays import HardRays, jittered
from nerfstudio_prune.nerf.teacher.field_pass import observed_passes
from nerfstudio_prune.nerf.teacher.teacher import Teacher

Config = Callable[..., Any]
EVERYTHING = {"colour_weight": 0.5, "pseudo_rays": 0.5, "hard_rays": 0.25, "hard_pool": 40, "coarse_weight": 0.1}


def batch_of(count: int = 32, channels: int = 3) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(count, channels, generator=torch.Generator().manual_seed(7))}


def values(density: Any, rgb: Any, deltas: Any) -> FieldValues:
    """One ray, from plain lists."""
    d, c, s = (torch.tensor(v, dtype=torch.float64) for v in (density, rgb, deltas))
    return FieldValues(d[None, :, None], c[None, :, None].expand(-1, -1, 3), s[None, :, None])


def teacher_of(model: PruneModel, steps: int = 10, seed: int = 0, **options: Any) -> Teacher:
    return Teacher(TeacherConfig(steps=steps, **options).resolve(), model, seed)


def test_alpha_by_hand() -> None:
    """The formula that tames densities: no light passes an infinite one, half of it passes ln 2 on a step of 1."""
    density = torch.tensor([[0.0], [math.log(2)], [math.log(2)], [math.inf]], dtype=torch.float64)
    deltas = torch.tensor([[1.0], [1.0], [2.0], [0.5]], dtype=torch.float64)
    assert torch.allclose(alpha_of(density, deltas)[:, 0], torch.tensor([0, 0.5, 0.75, 1], dtype=torch.float64))


def test_light_along_a_ray_by_hand() -> None:
    """Steps that each take half, half, three quarters: what is left in front of each, and what each contributes."""
    ray = values([math.log(2)] * 3, [0.0] * 3, [1.0, 1.0, 2.0])
    assert torch.allclose(ray.transmittance[0, :, 0], torch.tensor([1, 0.5, 0.25], dtype=torch.float64))
    assert torch.allclose(ray.weights[0, :, 0], torch.tensor([0.5, 0.25, 0.1875], dtype=torch.float64))


def test_weights_of_the_field_are_the_hosts() -> None:
    """The teacher's colours are rendered from these weights; they have to be those of the student's own rendering."""
    model = tiny_model()
    with observed_passes(model) as passes:
        model(rays(6))
    fine = passes["field_fine"]
    assert torch.allclose(fine.student.weights, fine.samples.get_weights(fine.student.density), atol=1e-6)


def test_point_loss_by_hand() -> None:
    """Two points: an opaque one and, behind it, one that no light reaches. An error there counts by the floor only."""
    teacher = values([math.inf, math.log(2)], [1.0, 0.0], [1.0, 1.0])
    teacher.density[0, 0] = 1e4
    front, behind = 1 - POINT_FLOOR / 2, POINT_FLOOR / 2
    wrong_colour = values([1e4, math.log(2)], [0.8, 0.3], [1.0, 1.0])
    assert float(point_loss(wrong_colour, teacher)) == pytest.approx(front * 0.2**2 + behind * 0.3**2)
    wrong_density = values([math.log(2), 0.0], [1.0, 0.0], [1.0, 1.0])
    assert float(point_loss(wrong_density, teacher)) == pytest.approx(front * 0.5**2 + behind * 0.5**2)


def test_spread_of_nothing_is_even() -> None:
    """Rays through empty space only have no weights; that must not divide by zero."""
    assert spread(torch.zeros(4), floor=1.0).tolist() == [0.25] * 4
    assert spread(torch.zeros(4)).isfinite().all()
    assert float(spread(torch.tensor([3.0, 1.0, 0.0])).sum()) == pytest.approx(1)


def test_each_field_is_observed_once_and_without_a_trace() -> None:
    """The losses take the values of the pass that trains; the fields must not be evaluated for them again, and the
    model must be as it was afterwards, or a copy of it would hold on to the notes."""
    model, bundle = tiny_model(), rays(6)
    torch.manual_seed(0)
    expected = model(bundle)
    torch.manual_seed(0)
    with observed_passes(model) as passes:
        outputs = model(bundle)
    assert same_bits({k: v.detach() for k, v in outputs.items()}, {k: v.detach() for k, v in expected.items()})
    assert list(passes) == list(FIELDS)
    assert passes["field_coarse"].student.density.shape == (6, 8, 1) and passes["field_fine"].student.rgb.shape == (
        6,
        17,
        3,
    )
    assert passes["field_fine"].student.density.requires_grad
    assert all("forward" not in vars(getattr(model, name)) for name in FIELDS)
    with pytest.raises(RuntimeError, match="in the pass"), observed_passes(model):
        raise RuntimeError("in the pass")
    assert all("forward" not in vars(getattr(model, name)) for name in FIELDS)


def test_an_equal_student_has_no_loss() -> None:
    """Both are compared at the same points by the same sums; anything left would pull a perfect student away."""
    model = tiny_model()
    for share, name in ((1.0, "teacher_point_loss"), (0.0, "teacher_colour_loss")):
        _, losses, _ = teacher_of(model, point_share=share).train_step(model, rays(32), batch_of(), 0)
        assert losses[name].item() == 0.0


@pytest.mark.parametrize("age", [0, 9])
def test_gradients_reach_the_student_only(age: int) -> None:
    """A teacher that moves is none. Each of the losses alone must reach the student."""
    model = tiny_model()
    teacher = teacher_of(model, point_share=0.5, **EVERYTHING)
    shrink(model, tiny_widths(8, 4))
    # The coarse loss is one-sided: let the coarse field see less than the teacher does.
    torch.nn.init.constant_(model.field_coarse.field_output_density.net.bias, -3)  # type: ignore[union-attr]
    if age:
        teacher.train_step(model, rays(32), batch_of(), age)  # fills the pool
    _, losses, _ = teacher.train_step(model, rays(32), batch_of(), age)
    own = {name for name in losses if name.startswith("teacher_")}
    assert own == (
        {"teacher_colour_loss", "teacher_pseudo_loss", "teacher_hard_loss", "teacher_coarse_loss"}
        if age
        else {"teacher_point_loss", "teacher_coarse_loss"}
    )
    frozen = [p for f in teacher.fields.values() for p in f.parameters()]
    for name in sorted(own):
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        reached = {
            f for f in FIELDS if any(p.grad is not None and p.grad.any() for p in getattr(model, f).parameters())
        }
        assert (
            reached
            == {
                "teacher_point_loss": set(FIELDS),
                "teacher_colour_loss": {"field_fine"},
                "teacher_pseudo_loss": set(FIELDS),
                "teacher_hard_loss": set(FIELDS),
                "teacher_coarse_loss": {"field_coarse"},
            }[name]
        )
    assert len(frozen) == len(list(model.field_fine.parameters())) * 2
    assert all(not p.requires_grad and p.grad is None for p in frozen)


def test_colour_weight_mixes() -> None:
    """The share that the teacher gets is taken from the photo: all of it leaves none."""
    model = tiny_model()
    parts = {}
    for share in (0.0, 0.25, 1.0):
        teacher = teacher_of(model, point_share=0.0, colour_weight=share, pseudo_rays=0.0)
        torch.manual_seed(0)
        _, losses, _ = teacher.train_step(model, rays(32), batch_of(), 0)
        parts[share] = {name: loss.item() for name, loss in losses.items()}
    assert set(parts[0.0]) == {"rgb_loss_coarse", "rgb_loss_fine"}
    assert parts[0.25]["rgb_loss_fine"] == pytest.approx(0.75 * parts[0.0]["rgb_loss_fine"])
    assert parts[1.0]["rgb_loss_fine"] == 0.0 and parts[1.0]["rgb_loss_coarse"] == parts[0.0]["rgb_loss_coarse"]


def test_extra_rays_leave_the_random_state_alone() -> None:
    """Runs with and without a teacher see the same batches, or no difference between them means anything; the extra
    rays' own samples follow from the run's seed."""
    model = tiny_model()
    found = []
    for seed in (1, 1, 2):
        teacher = teacher_of(model, point_share=0.0, seed=seed, **EVERYTHING)
        torch.manual_seed(0)
        model(rays(32))
        expected = torch.get_rng_state()
        for _ in range(2):
            torch.manual_seed(0)
            _, losses, _ = teacher.train_step(model, rays(32), batch_of(), 0)
        assert torch.equal(torch.get_rng_state(), expected)
        found.append((float(losses["teacher_pseudo_loss"]), float(losses["teacher_hard_loss"])))
    assert found[0] == found[1] and found[0][0] != found[2][0] and found[0][1] != found[2][1]


def test_pseudo_rays_stay_near() -> None:
    """Poses have to stay where the teacher has learnt something: within the bounds on move and turn, and up to them."""
    bundle = rays(4000)
    moved = jittered(bundle, 0.1, 2.0, torch.Generator().manual_seed(0))
    distance = (moved.origins - bundle.origins).norm(dim=-1)
    cosine = (moved.directions * bundle.directions).sum(dim=-1).double()
    degrees = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    assert 0.09 < float(distance.max()) <= 0.1 + 1e-5 and float(distance.median()) > 0.05
    assert 1.9 < float(degrees.max()) <= 2.0 + 0.05 and float(degrees.median()) > 1
    assert float((moved.origins - bundle.origins).mean(dim=0).norm()) < 0.005
    assert torch.allclose(moved.directions.norm(dim=-1), torch.ones(4000), atol=1e-5)
    assert torch.equal(moved.pixel_area, bundle.pixel_area)
    still = jittered(bundle, 0.0, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(still.origins, bundle.origins) and torch.allclose(still.directions, bundle.directions)


def test_pool_keeps_the_largest_errors() -> None:
    """Against sorting everything that was ever offered; each error has to stay with its own ray and colour."""
    pool, generator = HardRays(10), torch.Generator().manual_seed(0)
    offered: list[tuple[float, float]] = []
    for batch in range(5):
        bundle, errors = rays(8, seed=batch), torch.rand(8, generator=generator)
        pool.offer(bundle, errors[:, None].expand(8, 3), errors)
        offered += list(zip(errors.tolist(), bundle.directions[:, 0].tolist(), strict=True))
        best = sorted(offered, reverse=True)[:10]
        assert pool.rays is not None
        assert sorted(zip(pool.errors.tolist(), pool.rays.directions[:, 0].tolist(), strict=True), reverse=True) == best
        assert torch.equal(pool.colours[:, 0], pool.errors)
    drawn = pool.draw(4, generator)
    assert len(set(drawn.tolist())) == 4 and len(pool.draw(99, generator)) == 10
    pool.update(drawn, torch.zeros(4))  # learnt: the next batch takes their places
    pool.offer(rays(4, seed=9), torch.full((4, 3), 0.5), torch.full((4,), 1e-3))
    assert len(pool.errors) == 10 and float(pool.errors.min()) == pytest.approx(1e-3)


def test_empty_pool_gives_nothing() -> None:
    """The first step with a teacher has no hard rays yet."""
    assert len(HardRays(10).draw(4, torch.Generator())) == 0
    model = tiny_model()
    teacher = teacher_of(model, point_share=0.0, hard_rays=0.5)
    assert "teacher_hard_loss" not in teacher.train_step(model, rays(32), batch_of(), 0)[1]
    assert "teacher_hard_loss" in teacher.train_step(model, rays(32), batch_of(), 0)[1]
    assert teacher.steps == 2 and teacher.seconds > 0


@pytest.mark.parametrize("background", ["random", "last_sample", "white"])
def test_backgrounds(background: Any) -> None:
    """Photos with opacity and every background that a method uses."""
    model = tiny_model(background_color=background)
    teacher = teacher_of(model, point_share=0.0, **EVERYTHING)
    for _ in range(2):
        _, losses, _ = teacher.train_step(model, rays(32), batch_of(channels=4), 0)
    assert float(losses["teacher_colour_loss"]) == pytest.approx(0, abs=1e-12)
    assert len(losses) == 6 and all(bool(loss.isfinite()) for loss in losses.values())


@pytest.mark.parametrize("age", [0, 9])
def test_mixed_precision(age: int) -> None:
    """Under autocast the fields answer in half precision; the losses are taken in single precision."""
    model = tiny_model()
    teacher = teacher_of(model, point_share=0.5, **EVERYTHING)
    shrink(model, tiny_widths(8, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            _, losses, _ = teacher.train_step(model, rays(32), batch_of(), age)
    own = [loss for name, loss in losses.items() if name.startswith("teacher_")]
    assert len(own) == (4 if age else 2) and all(loss.dtype == torch.float32 for loss in own)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(bool(p.grad.isfinite().all()) for p in model.field_fine.parameters() if p.grad is not None)


def _trained_model() -> PruneModel:
    """A tiny model whose fields have learnt a coloured ball, without rendering."""
    torch.manual_seed(0)
    model = tiny_model(base_mlp_layer_width=32, head_mlp_layer_width=16)
    optimizer = torch.optim.Adam(model.get_param_groups()["fields"], lr=5e-3)
    for step in range(150):
        optimizer.zero_grad()
        with observed_passes(model) as passes:
            model(rays(64, seed=step))
        loss = torch.zeros(())
        for one in passes.values():
            where = one.samples.frustums.get_positions()
            inside = (where.norm(dim=-1, keepdim=True) < 0.7).float()
            truth = FieldValues(8 * inside, (0.5 + 0.5 * where).clamp(0, 1), one.student.deltas)
            loss = loss + point_loss(one.student, truth)
        loss.backward()
        optimizer.step()
    return model


def test_points_pull_a_pruned_student_towards_its_teacher() -> None:
    """The purpose of all this: after the cut the student must come back to what the dense network says, measured on
    points that it was not trained on, and the teacher must not move meanwhile."""
    model = _trained_model()
    teacher = teacher_of(model, steps=100)
    frozen = {name: copied_state(f) for name, f in teacher.fields.items()}
    shrink(model, {name: width // 2 for name, width in widths(model).items()})

    def distance() -> float:
        with torch.no_grad(), torch.random.fork_rng(), observed_passes(model) as passes:
            torch.manual_seed(5)
            model(rays(64, seed=1000))
            return sum(float(point_loss(passes[f].student, teacher.values(f, passes[f]))) for f in FIELDS)

    before = distance()
    optimizer = torch.optim.Adam(model.get_param_groups()["fields"], lr=2e-3)
    for step in range(60):
        optimizer.zero_grad()
        losses = teacher.train_step(model, rays(64, seed=2000 + step), batch_of(64), step)[1]
        losses["teacher_point_loss"].backward()
        optimizer.step()
    assert before > 1e-3 and distance() < before / 3
    assert all(same_bits(copied_state(f), frozen[name]) for name, f in teacher.fields.items())


def record_losses(trainer: Any) -> dict[int, set[str]]:
    """Step -> names of its losses, filled in while the trainer trains."""
    names: dict[int, set[str]] = {}
    inner = trainer.train_iteration

    def train_iteration(step: int) -> Any:
        outputs = inner(step)
        names[step] = set(outputs[1])
        return outputs

    trainer.train_iteration = train_iteration
    return names


PHOTO = {"rgb_loss_coarse", "rgb_loss_fine"}


def test_off_is_as_before(tiny_config: Config) -> None:
    """Without a teacher nothing may change: no entry of the loss, no random number, no weight; `steps 0` is off too."""
    runs = []
    for name, options in (("absent", {}), ("zero", {"teacher": TeacherConfig(steps=0, point_weight=3.0)})):
        trainer = start(tiny_config(name, start_step=4, **options))
        host: Any = VanillaPipeline.get_train_loss_dict
        if name == "absent":  # the host's own step, as before there were teachers
            trainer.pipeline.get_train_loss_dict = host.__get__(trainer.pipeline)
        names = record_losses(trainer)
        trainer.train()
        assert trainer.pipeline.distillation.teacher is None
        assert list(names.values()) == [PHOTO] * 10
        state = copied_state(trainer.pipeline)
        del state["_model._extra_state"]
        # Not the generator of `random`: threads of the host draw from it too, whenever they come to it.
        runs.append((state, torch.get_rng_state()))
    assert same_bits(runs[0], runs[1])


def test_same_batches_with_a_teacher(tiny_config: Config) -> None:
    """A run with a teacher and its control see the same rays in every step."""
    seen: list[list[torch.Tensor]] = []
    for name, steps in (("without", 0), ("with", 5)):
        trainer = start(tiny_config(name, start_step=2, teacher=TeacherConfig(steps, 0.4, **EVERYTHING)))
        found: list[torch.Tensor] = []
        inner = trainer.pipeline.datamanager.next_train

        def next_train(step: int, inner: Any = inner, found: list[torch.Tensor] = found) -> Any:
            rays, batch = inner(step)
            found.append(rays.directions)
            return rays, batch

        trainer.pipeline.datamanager.next_train = next_train
        trainer.train()
        seen.append(found)
    assert len(seen[0]) == 10 and same_bits(seen[0], seen[1])


def test_run_with_a_teacher(
    tiny_config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run through the host's own loop: which losses in which step, who holds the frozen network, what is said, and
    that all of it is gone afterwards."""
    scalars: dict[str, tuple[float, int]] = {}
    monkeypatch.setattr(writer, "put_scalar", lambda name, scalar, step: scalars.update({str(name): (scalar, step)}))
    teacher = TeacherConfig(steps=4, point_share=0.5, **EVERYTHING)
    config = tiny_config(start_step=3, teacher=teacher)
    config.steps_per_save = 5
    config.save_only_latest_checkpoint = False
    trainer = start(config)
    names = record_losses(trainer)
    dense: dict[str, Any] = {}
    teachers: list[Teacher] = []

    def look(step: int) -> None:
        if step == 3:
            dense.update({name: copied_state(getattr(trainer.pipeline.model, name)) for name in FIELDS})
        taught_by = trainer.pipeline.distillation.teacher
        if taught_by is not None:
            teachers.append(taught_by)
            assert all(same_bits(copied_state(taught_by.fields[name]), dense[name]) for name in FIELDS)
            frozen = {id(p) for f in taught_by.fields.values() for p in f.parameters()}
            held = [p for group in trainer.optimizers.optimizers["fields"].param_groups for p in group["params"]]
            held += [*trainer.optimizers.parameters["fields"], *trainer.pipeline.parameters()]
            assert frozen.isdisjoint(map(id, held))

    after_each_step(trainer, look)
    trainer.train()
    both = {*PHOTO, "teacher_coarse_loss"}
    rendered = {*both, "teacher_colour_loss", "teacher_pseudo_loss"}
    assert [names[step] for step in (3, 4, 5, 6, 7, 8)] == [
        PHOTO,
        {*both, "teacher_point_loss"},
        {*both, "teacher_point_loss"},
        rendered,
        {*rendered, "teacher_hard_loss"},
        PHOTO,
    ]
    assert len(teachers) == 4 and len(set(map(id, teachers))) == 1 and teachers[0].steps == 4
    assert trainer.pipeline.distillation.teacher is None
    assert scalars["Prune/teacher_seconds"] == (teachers[0].seconds, 7) and teachers[0].seconds > 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Teacher: the network of step 3 for 4 steps after each event, 2 of them point by point, 2 with" in text
    assert text.count("Teacher switched off at step 7: 4 steps with it took") == 1
    saved = checkpoint(trainer, 5)
    assert set(saved["pipeline"]) == set(trainer.pipeline.state_dict())
    assert set(saved["pipeline"]["_model._extra_state"]["options"]["teacher"]) == set(vars(teacher))
    sizes = sum(v.numel() for k, v in saved["pipeline"].items() if torch.is_tensor(v) and "field_" in k)
    assert sizes == sum(p.numel() for name in FIELDS for p in getattr(trainer.pipeline.model, name).parameters())


def test_several_events_have_one_teacher(tiny_config: Config) -> None:
    """The teacher of all events is the network before the first of them; between them it rests when its steps are
    over, and it is kept until the last one's are."""
    used: list[int] = []
    kept: list[int] = []
    config = tiny_config(schedule="iterative", num_events=2, start_step=1, stop_step=5, teacher=TeacherConfig(steps=2))
    trainer = start(config)
    distillation = trainer.pipeline.distillation

    def look(step: int) -> None:
        used.extend([step] if distillation.at(step) is not None else [])
        if distillation.teacher is not None:
            kept.append(step)
            assert distillation.teacher.fields["field_fine"].mlp_base.layers[1].out_features == 16

    before_each_step(trainer, look)
    trainer.train()
    assert used == [2, 3, 6, 7] and kept == [2, 3, 4, 5, 6, 7]


def test_end_of_the_run_lets_the_teacher_go(tiny_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """More steps than the run has left: what the teacher cost must be said all the same."""
    trainer = train(tiny_config(start_step=6, teacher=TeacherConfig(steps=10)))
    assert trainer.pipeline.distillation.teacher is None
    assert "Teacher switched off at step 9: 3 steps with it" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("start_step", "steps", "says"),
    [(2, 5, True), (2, 2, False), (7, 2, False)],
)
def test_resumed_run(
    tiny_config: Config, capsys: pytest.CaptureFixture[str], start_step: int, steps: int, says: bool
) -> None:
    """The dense network is in no checkpoint of a pruned run: recovery goes on without a teacher and says so, once, if
    there would have been one. Before the first event nothing is lost."""
    config = tiny_config("first", start_step=start_step, teacher=TeacherConfig(steps=steps))
    config.steps_per_save, config.save_only_latest_checkpoint = 4, False
    first = train(config)
    capsys.readouterr()
    again = start(resume(tiny_config("again"), first, 4, 5))
    names = record_losses(again)
    again.train()
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("No teacher: the dense network is in no checkpoint") == int(says)
    taught = [step for step, found in names.items() if "teacher_point_loss" in found]
    assert taught == ([8, 9] if start_step == 7 else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "prune.teacher.steps must be in [0, 1,000,000,000], got -1"),
        ({"point_share": 1.5}, "prune.teacher.point_share must be in [0, 1], got 1.5"),
        ({"point_weight": -1.0}, "prune.teacher.point_weight must be in [0, 1,000], got -1.0"),
        ({"colour_weight": 2.0}, "prune.teacher.colour_weight must be in [0, 1], got 2.0"),
        ({"pseudo_rays": -0.5}, "prune.teacher.pseudo_rays must be in [0, 1], got -0.5"),
        ({"jitter": math.nan}, "prune.teacher.jitter must be a finite number, got nan"),
        ({"jitter_degrees": 181.0}, "prune.teacher.jitter_degrees must be in [0, 180], got 181.0"),
        ({"hard_rays": 1.1}, "prune.teacher.hard_rays must be in [0, 1], got 1.1"),
        ({"hard_pool": 0}, "prune.teacher.hard_pool must be in [1, 262,144], got 0"),
        ({"coarse_weight": -0.1}, "prune.teacher.coarse_weight must be in [0, 1,000], got -0.1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    """Refused at the start of the run, in words that name the option."""
    with pytest.raises(ValueError) as caught:
        PruneConfig(teacher=TeacherConfig(**{"steps": 10, **options})).validate()
    assert message in str(caught.value)


def test_every_option_is_checked_and_has_a_default() -> None:
    """A new option is easily forgotten in one of the three places."""
    assert all(value is None for value in vars(TeacherConfig()).values())
    filled, recipe = TeacherConfig().filled(), TeacherConfig().resolve()
    assert set(vars(TeacherConfig())) == set(TeacherConfig.defaults()) == {f.name for f in fields(TeacherRecipe)}
    assert all(value is not None for value in vars(filled).values()) and vars(filled) == vars(recipe)
    for name in vars(TeacherConfig()):
        with pytest.raises(ValueError, match=f"prune.teacher.{name} must be"):
            PruneConfig(teacher=TeacherConfig(**{"steps": 10, name: -1})).validate()


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`--pipeline.prune.teacher.*`, each with a text in the help."""
    found = tyro.cli(PruneConfig, args="--teacher.steps 500 --teacher.point-share 0.3 --teacher.hard-pool 64".split())
    assert found == PruneConfig(teacher=TeacherConfig(steps=500, point_share=0.3, hard_pool=64))
    with pytest.raises(SystemExit):
        tyro.cli(PruneConfig, args=["--help"], prog="prune")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in vars(TeacherConfig()):
        help_text = text.split(f"--teacher.{name.replace('_', '-')} ", 1)[1].split("(default", 1)[0]
        assert len(help_text.split()) > 4, f"{name}: {help_text!r}"


def test_options_of_a_checkpoint_hold() -> None:
    """Stored with the plan; what is given again replaces its own part, and a checkpoint of before knows no teacher."""
    model, state = tiny_model(), PruneState()
    first = PruneConfig(min_width=2, teacher=TeacherConfig(steps=20, point_weight=2.0))
    updated(state, first, model, 0, 100)
    plan = list(state.plan)
    stored = PruneState.from_dict(deepcopy(state.to_dict()))
    in_force, changed = updated(stored, PruneConfig(), model, 5, 100)
    assert changed == [] and in_force.teacher == first.teacher
    in_force, changed = updated(stored, PruneConfig(teacher=TeacherConfig(steps=0)), model, 5, 100)
    assert changed == ["teacher"] and in_force.teacher == TeacherConfig(steps=0, point_weight=2.0)
    assert stored.plan == plan and stored.options["teacher"]["steps"] == 0
    old = PruneState.from_dict(deepcopy(state.to_dict()))
    del old.options["teacher"]
    in_force, changed = updated(old, PruneConfig(), model, 5, 100)
    assert changed == [] and in_force.teacher == TeacherConfig()
    newer = PruneState.from_dict(deepcopy(state.to_dict()))
    newer.options["teacher"]["given_up"] = 1
    assert updated(newer, PruneConfig(), model, 5, 100)[0].teacher == first.teacher
    assert first.stored()["teacher"]["steps"] == 20
