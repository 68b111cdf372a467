"""Events of Gaussians in a run: how many leave, what is cut with them, when, and what a person is told."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_run import after_each_step, before_each_step, checkpoint, resume, same_bits
from support.tiny_splats import (
    NAMES,
    SETTLED,
    STEPS,
    check_whole,
    copies,
    counts,
    moments,
    pictures,
    saving,
    start,
    train,
)

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.schedule import size_at
from nerfstudio_prune.core.subject import NoOptimizers
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.gaussians.selecting import floor_of
from nerfstudio_prune.splats.config import SplatPruneConfig
from nerfstudio_prune.splats.subject import ViewEvidence
from nerfstudio_prune.viewer.preview import cut_draft, take_draft
from nerfstudio_prune.viewer.session import Session
from nerfstudio_prune.viewer.texts import preview_text

Config = Callable[..., Any]
LAST = STEPS - 1


@pytest.fixture
def once(tiny_config: Config) -> Config:
    """Makes configurations of runs with one cut at step 10 by opacity, and no other degree, unless options say so."""

    def make(name: str = "run", **options: Any) -> Any:
        return tiny_config(name, **{"start_step": 10, "sh_degree": 3, "score": "opacity", **options})

    return make


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Any:
    """A run that is not pruned, with a checkpoint of its last step."""
    from support.tiny_splats import tiny_config  # noqa: PLC0415  the fixture of that name is made for each test

    return train(tiny_config(tmp_path_factory.mktemp("dense"), scene_cache, "dense", strategy="none"))


def gaussians_of(trainer: Any) -> int:
    return trainer.pipeline.model.num_points


def words(capsys: Any) -> str:
    """What was printed so far, without line breaks."""
    return " ".join(capsys.readouterr().out.split())


def look_at(trainer: Any, at: int) -> dict[str, Any]:
    """What there is at the end of a step before pruning looks at it; filled when the step is passed."""
    found: dict[str, Any] = {}
    model = trainer.pipeline.model

    def look(step: int) -> None:
        if step == at:
            found["parameters"], found["running"] = copies(model.gauss_params), copies(model.running)
            found["moments"], found["random"] = moments(trainer), torch.get_rng_state()

    after_each_step(trainer, look)
    return found


# One cut


@pytest.mark.parametrize("recovery", ["continue", "retrain"])
@pytest.mark.parametrize("strategy", ["rank", "random"])
def test_rows_of_everything(once: Config, strategy: str, recovery: str) -> None:
    """The six parameters, their moments and the densification's notes lose the same rows; one list that is cut
    otherwise gives every Gaussian behind the first that left another one's colour. Nothing draws from the run's random
    state, so that the steps behind the event see what they would have seen."""
    trainer = start(once(strategy=strategy, recovery=recovery))
    model, found, after = trainer.pipeline.model, look_at(trainer, 10), {}

    def keep(step: int) -> None:
        if step == 11:
            after["parameters"], after["moments"] = copies(model.gauss_params), moments(trainer)
            after["running"], after["random"] = copies(model.running), torch.get_rng_state()
            check_whole(trainer)

    before_each_step(trainer, keep)
    trainer.train()
    count = len(found["parameters"]["means"])
    n_keep = round(count * 0.34)
    assert counts(trainer) == [(10, n_keep, 3)] and len(after["parameters"]["means"]) == n_keep < count
    rows = {tuple(row.tolist()): i for i, row in enumerate(found["parameters"]["means"])}
    kept = torch.tensor([rows[tuple(row.tolist())] for row in after["parameters"]["means"]])
    assert kept.tolist() == sorted(kept.tolist())
    for name in NAMES:
        assert torch.equal(after["parameters"][name], found["parameters"][name][kept]), name
        old, new = found["moments"][name], after["moments"][name]
        if recovery == "retrain":
            assert old and not new
            continue
        assert float(new["step"]) == float(old["step"]) > 0
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(new[key], old[key][kept]), name
    assert set(found["running"]) == {"grad2d", "count", "radii"}
    for name, value in found["running"].items():
        assert torch.equal(after["running"][name], value[kept]), name
    assert torch.equal(after["random"], found["random"])
    if strategy == "rank":
        opacities = found["parameters"]["opacities"][:, 0]
        left = torch.ones(count, dtype=torch.bool)
        left[kept] = False
        assert float(opacities[kept].min()) >= float(opacities[left].max())


def test_merging_makes_one_of_two(once: Config) -> None:
    """Strategy merge needs no photos; what comes of two Gaussians has the moments of one of them, and can be saved and
    gone on with."""
    trainer = train(saving(once(strategy="merge", pruning_ratio=0.5, recovery="continue"), LAST))
    ((step, n_keep, _),) = counts(trainer)
    assert step == 10 and n_keep == round(trainer.pipeline.model.prune_state.history[0].before.parts["gaussians"] / 2)
    check_whole(trainer)
    assert {name: float(state["step"]) for name, state in moments(trainer).items()} == dict.fromkeys(NAMES, STEPS)
    again = train(resume(once("again"), trainer, LAST, 2))
    assert gaussians_of(again) == n_keep


def test_growth_is_over_after_the_event(once: Config) -> None:
    """Densification behind a cut would refill what was cut, and every step would cost more again."""
    trainer, numbers = start(once()), {}
    model = trainer.pipeline.model
    before_each_step(trainer, lambda step: numbers.__setitem__(step - 1, model.num_points))
    trainer.train()
    growing = [numbers[step] for step in range(10)]
    assert growing == sorted(growing) and growing[-1] > growing[0]
    assert {numbers[step] for step in range(10, LAST)} == {counts(trainer)[0][1]}
    assert model.num_points == counts(trainer)[0][1]


def test_same_seed_same_cut(once: Config) -> None:
    """Twice the same run gives the same bits, and a random cut is another one for another seed."""
    first, second = (train(once(name, strategy="random", seed=3)) for name in "ab")
    assert same_bits(*(copies(trainer.pipeline.model.gauss_params) for trainer in (first, second)))
    other = train(once("c", strategy="random", seed=4))
    means = [trainer.pipeline.model.gauss_params["means"] for trainer in (first, other)]
    assert means[0].shape == means[1].shape and not torch.equal(*means)


@pytest.mark.parametrize("score", ["removal", "contribution", "significance", "hits_opacity"])
def test_dense_and_pruned_runs_see_the_same(once: Config, score: str) -> None:
    """The control of every comparison: before the event both are the same to the bit, and from then on they see the
    same views and backgrounds, whatever the event has looked at."""
    found: dict[str, Any] = {}
    for name, options in {"dense": {"strategy": "none"}, "pruned": {"score": score, "rounds": 2}}.items():
        trainer, seen, at = start(once(name, **options)), [], {}
        manager, inner = trainer.pipeline.datamanager, trainer.pipeline.datamanager.next_train

        def next_train(step: int, inner: Any = inner, seen: list[Any] = seen) -> Any:
            camera, batch = inner(step)
            seen.append((camera.metadata["cam_idx"], torch.get_rng_state().tolist()))
            return camera, batch

        manager.next_train = next_train
        at = look_at(trainer, 10)
        trainer.train()
        found[name] = seen, at["parameters"]
    assert found["dense"][0] == found["pruned"][0]
    assert same_bits(found["dense"][1], found["pruned"][1])


def test_scores_without_harmonics_see_the_colours_of_the_pictures(once: Config) -> None:
    """A model of degree 0 stores logits of colours in place of coefficients. What a Gaussian is worth must be what the
    model's own pictures lose, and not those of other colours."""
    config = once(score="removal", removal_norm="l2", sh_degree=0)
    config.pipeline.model.sh_degree = 0
    trainer = start(config)
    pipeline, model = trainer.pipeline, trainer.pipeline.model
    with torch.no_grad():
        model.gauss_params["features_dc"].mul_(3)  # far from 0, where both are alike
        model.gauss_params["opacities"].fill_(2.0)
    found = pipeline.evidence(pipeline.controller.run.recipe, 0).collect(model.gaussians, {"removal_l2"})
    worth = found.sums["removal_l2"]
    best, everyone = int(worth.argmax()), torch.arange(model.num_points)
    lost = 0.0
    with torch.no_grad():
        for view in range(len(pipeline.datamanager.train_dataset)):
            camera = pipeline.datamanager.view_data("train", view).camera
            whole, without = (
                model.with_gaussians(model.gaussians.select(keep)).get_outputs(camera)["rgb"].double()
                for keep in (everyone, everyone[everyone != best])
            )
            lost += float((whole - without).square().sum())
    assert float(worth[best]) == pytest.approx(lost, rel=1e-3)


# When


def test_event_before_growth_has_settled_is_refused(once: Config) -> None:
    """Right behind an opacity reset no score says anything, and densification would refill the cut. Refused at the
    start, not hours later, with the step from which it may happen."""
    for step in (0, 7, SETTLED - 1):
        with pytest.raises(ValueError) as caught:
            start(once(start_step=step))
        assert str(caught.value) == (
            f"prune.start_step {step} comes too early: Gaussians grow and their opacities are reset until step 8 "
            "(pipeline.model.stop-split-at, scaled to the run), and settle for 1 steps; the first step at whose end an "
            f"event may happen is {SETTLED}"
        )
    assert counts(train(once(start_step=SETTLED)))[0][0] == SETTLED


def test_event_whose_step_is_left_open_waits_for_growth(once: Config) -> None:
    """Settings under which Gaussians grow for longer are no error: nobody asked for an event at 52 %. Where growth does
    not end within the run there is none, which is told at the start."""
    config = once(start_step=None)
    config.pipeline.model.stop_split_at = 6000
    trainer = start(config)
    assert [event.step for event in trainer.pipeline.model.prune_state.pending] == [13]
    config = once(start_step=None)
    config.pipeline.model.schedule_steps = None
    with pytest.raises(ValueError, match="lies past the end of the run, whose last step is 19; pruning would never"):
        start(config)


def test_cut_by_hand_before_growth_has_settled_is_refused(once: Config) -> None:
    """A page offers no cut that early, and one that is asked for all the same changes nothing."""
    trainer, obstacles = start(once(start_step=15)), {}
    controller = trainer.pipeline.controller

    def ask(step: int) -> None:
        obstacles[step] = controller.obstacle("prune")
        if step in (3, 8):
            with pytest.raises(ValueError, match=rf"step {step} comes too early: .* may happen is {SETTLED}"):
                controller.prune_by_hand(controller.run.options, step)

    after_each_step(trainer, lambda step: None)
    trainer.callbacks.append(type(trainer.callbacks[0])(trainer.callbacks[0].where_to_run, ask))
    trainer.train()
    assert [step for step, why in obstacles.items() if why] == list(range(SETTLED))
    assert counts(trainer)[0][0] == 15


def test_auto_start_waits_for_growth(once: Config) -> None:
    """The training PSNR falls at every reset of the opacities, which looks like a plateau."""
    trainer = train(once(auto_start=1000.0, start_step=16))
    ((step, _, _),) = counts(trainer)
    assert SETTLED <= step < 16


def test_no_growth_no_waiting(once: Config) -> None:
    """Where nothing grows, an event may happen at once."""
    config = once(start_step=0, score="removal")
    config.pipeline.model.stop_split_at = 0
    assert counts(train(config)) == [(0, 68, 3)]


# What goes wrong


def test_event_that_fails(once: Config, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With `on-error continue` the run goes on as it was, to the next event; else it ends, and is saved."""

    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError("no room for the pairs")

    monkeypatch.setattr("nerfstudio_prune.splats.pipeline.collect", fail)
    trainer = train(once(score="removal", on_error="continue", sh_degree=1, sh_step=13))
    failed, lowered = trainer.pipeline.model.prune_state.history
    assert failed.step == 10 and "no room for the pairs" in failed.error and failed.before == failed.after
    assert counts(trainer) == [(13, gaussians_of(trainer), 1)] and lowered.step == 13
    check_whole(trainer)
    with pytest.raises(MemoryError):
        train(once("stopped", score="removal"))
    assert "the run is saved as of step 10" in words(capsys)


def test_not_finite(once: Config) -> None:
    """Training can diverge; scores of such a model would remove at random. The message names the parameter, how many
    Gaussians, and the first one."""
    trainer = start(once())
    model = trainer.pipeline.model

    def spoil(step: int) -> None:
        if step == 10:
            with torch.no_grad():
                model.gauss_params["scales"][[4, 7], 1] = float("nan")

    after_each_step(trainer, spoil)
    with pytest.raises(ValueError) as caught:
        trainer.train()
    assert str(caught.value) == (
        f"scales: 2 of {model.num_points} Gaussians have values that are not finite, the first one is Gaussian 4; "
        "nothing was pruned"
    )
    assert not model.prune_state.history


def test_scene_that_no_view_sees(once: Config) -> None:
    """Scores that are all equal would remove at random under the name of a score."""
    trainer = start(once(score="removal"))
    model = trainer.pipeline.model

    def hide(step: int) -> None:
        if step == 10:
            with torch.no_grad():
                model.gauss_params["means"] += 1000.0

    after_each_step(trainer, hide)
    with pytest.raises(ValueError, match=r"score removal is 0 for all \d+ Gaussians: no training view sees the scene"):
        trainer.train()


# How far


@pytest.mark.parametrize(("schedule", "shares"), [("iterative", (1, 2, 3)), ("cubic", (19, 26, 27))])
def test_several_events(once: Config, schedule: str, shares: tuple[int, ...]) -> None:
    """Each event goes its share of the way, counted from the Gaussians right before the first; the last one hits the
    target exactly."""
    options = {"schedule": schedule, "num_events": 3, "start_step": 10, "stop_step": 14, "sh_degree": 1, "sh_step": 16}
    trainer = train(once(pruning_ratio=0.5, **options))
    first = trainer.pipeline.model.prune_state.history[0].before.parts["gaussians"]
    final = round(first / 2)
    sizes = [size_at(first, final, Fraction(share, shares[-1])) for share in shares]
    assert sizes[-1] == final
    assert counts(trainer) == [*((step, n, 3) for step, n in zip((10, 12, 14), sizes, strict=True)), (16, final, 1)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pruning_ratio": 0.5}, lambda first: round(first / 2)),
        ({"pruning_ratio": 0.5, "round_to": 32, "schedule": "iterative", "num_events": 2}, lambda first: first / 2),
        ({"target_gaussians": 123}, lambda first: 123),
        ({"target_mb": 0.03}, lambda first: 127),  # 236 bytes each
        ({"target_mb": 0.03, "sh_degree": 0}, lambda first: 30_000 // 56),
        ({"target_mb": 100.0}, None),
        ({"target_gaussians": 100_000}, None),
        ({"target_gaussians": 100_000, "schedule": "iterative", "num_events": 3, "stop_step": 14}, None),
        ({"pruning_ratio": 0.0}, None),
        ({"max_psnr_drop": 1e-9, "strategy": "random"}, None),
        ({"strategy": "none"}, None),
    ],
)
def test_targets(once: Config, capsys: Any, options: dict[str, Any], expected: Any) -> None:
    """Exactly as many stay as asked for. A target that is reached already takes nothing away and is no error."""
    trainer = train(once(sh_step=19, **options))
    done = [event for event in trainer.pipeline.model.prune_state.history if event.step < LAST]
    if expected is None:
        assert not done
        assert ("skipped: nothing is left to remove" in words(capsys)) == (options.get("strategy") != "none")
    else:
        first = done[0].before.parts["gaussians"]
        assert done[-1].after.parts["gaussians"] == round(expected(first))


def test_largest_loss_of_quality(once: Config, capsys: Any) -> None:
    """As many leave as the training views bear; what was measured is told."""
    trainer = train(once(max_psnr_drop=0.05))
    ((_, n_keep, _),) = counts(trainer)
    text = words(capsys)
    assert "dB on training views" in text and "as far as the training views lose 0.05 dB" in text
    before = trainer.pipeline.model.prune_state.history[0].before.parts["gaussians"]
    assert floor_of(before) <= n_keep < before


@pytest.mark.parametrize("schedule", ["iterative", "cubic"])
def test_largest_loss_is_that_of_all_events_together(once: Config, schedule: str) -> None:
    """The promise is about the run, not about each of its cuts: with three of them three times as much would go. Each
    loses no more than its share, so that the loss of a cubic schedule comes early; one that is undone has lost
    nothing, and leaves its allowance to the next."""
    options = {"num_events": 3, "schedule": schedule, "stop_step": 14, "sh_step": 18}
    trainer = watched(once(max_psnr_drop=0.3, strategy="random", **options))
    run, quality, lost = trainer.pipeline.controller.run, [], {}

    def psnr() -> float:
        return trainer.pipeline.subject.gather(run.recipe, 0).psnr(run.subject.model.gaussians)

    class Watch(Listener):
        def before_cut(self, event: PruneEvent) -> None:
            quality.append(psnr())

        def after_cut(self, event: PruneEvent) -> None:
            lost[event.step] = quality[-1] - psnr()

    trainer.pipeline.controller.listeners.append(Watch())
    shares = [event.share for event in run.state.pending]
    told = [run.subject.aim(run.recipe, event) for event in run.state.pending]
    assert told[-1] == "as far as the training views lose 0.3 dB in all" != told[0]
    at_steps(trainer, {10: trainer.pipeline.controller.undo})
    trainer.train()
    first, second, third = lost.values()
    assert list(lost) == [10, 12, 14]
    parts = [0.3 * float(share) for share in (shares[0], shares[1], shares[2] - shares[1])]
    for loss, allowed in zip((first, second, third), parts, strict=True):
        assert 0 < loss <= allowed + 1e-6
    assert second > 0.3 * float(shares[1] - shares[0])  # with what the first one did not use in the end
    assert second + third <= 0.3


def test_largest_loss_of_merging_is_that_of_merged_gaussians(once: Config) -> None:
    """Merging loses less than removing at random as many: with the wrong pictures far too many would stay, and the
    number on the console would be of a scene that never is."""
    trainer = start(once(strategy="merge", max_psnr_drop=0.05))
    subject, run = trainer.pipeline.subject, trainer.pipeline.controller.run
    evidence = subject.gather(run.recipe, 0)
    change = subject.prepare(run.recipe, ScheduledEvent(10, Fraction(1), {}), evidence, run.optimizers, 0)
    (told,) = change.report
    change.apply()
    left = subject.model.num_points
    assert 20 <= left < 200
    assert told.startswith(f"{left} of 200 Gaussians keep {evidence.psnr(subject.model.gaussians):.2f} of")


@pytest.mark.parametrize(
    "target",
    [{"target_gaussians": 10_000}, {"target_mb": 50.0}, {"pruning_ratio": 0.1}],
)
def test_target_that_is_reached_by_hand(once: Config, target: dict[str, Any]) -> None:
    """In the panel a target that is reached already is refused with that reason, and the preview says so, whatever kind
    it is of; nothing is changed, and the run goes on to its planned events."""
    trainer = start(once(pruning_ratio=0.5, start_step=12))
    controller, subject, told = trainer.pipeline.controller, trainer.pipeline.subject, []
    half = replace(controller.run.options, pruning_ratio=0.5, sh_step=None)
    mine = replace(half, **{"pruning_ratio": None, **target})

    def ask(step: int) -> None:
        if step != 10:
            return
        controller.prune_by_hand(half, step)
        count = subject.model.num_points
        with pytest.raises(ValueError, match="nothing is left to remove for this target: it is reached already"):
            controller.prune_by_hand(mine, step)
        preview = cut_draft(take_draft(mine.resolve(), subject, step, 0))
        told.append(preview_text(preview, None))
        assert subject.model.num_points == count

    after = trainer.callbacks[-1].where_to_run
    trainer.callbacks.append(type(trainer.callbacks[0])(after, ask))
    trainer.train()
    assert told == ["At step 10 nothing is left to remove for this target"]
    assert [step for step, *_ in counts(trainer)] == [10]  # the planned half is there already


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_gaussians": 20}, r"prune.target_gaussians 20: at least \d+ of \d+ Gaussians must stay, got 20"),
        ({"pruning_ratio": 0.95}, r"prune.pruning_ratio 0.95: at least \d+ of \d+ Gaussians must stay, got \d+"),
        ({"target_mb": 0.001}, r"prune.target_mb 0.001: at least \d+ of \d+ Gaussians must stay, got 4"),
    ],
)
def test_impossible_targets(once: Config, options: dict[str, Any], message: str) -> None:
    """How many there are is known at the event only. What cannot be is refused there, and nothing is changed."""
    with pytest.raises(ValueError, match=message):
        train(once(**options))


def test_size_that_holds_no_gaussian(once: Config) -> None:
    """Known at the start already."""
    with pytest.raises(ValueError, match=r"target_mb must be at least 0.000236, the 236 bytes of one Gaussian of deg"):
        start(once(target_mb=0.0001))


def test_largest_loss_without_views(dense: Any) -> None:
    """A drop of quality needs something to measure it on."""
    subject = dense.pipeline.subject
    recipe = SplatPruneConfig(max_psnr_drop=1.0, score="opacity").resolve()
    evidence = ViewEvidence(lambda gaussians: None, None, 0.1)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="max_psnr_drop needs evaluation views to measure on, and there are none"):
        subject.prepare(recipe, ScheduledEvent(10, Fraction(1)), evidence, NoOptimizers(), 0)


# Spherical harmonics


def test_lowered_degree(once: Config, capsys: Any) -> None:
    """The degree is cut where the options say, the model of right before is the teacher for some steps, and what is
    told of it is what became fewer."""
    trainer = start(once(sh_degree=1, sh_step=14, distil__steps=3, distil__share=0.5))
    pipeline, there, shown = trainer.pipeline, {}, {}

    def note(step: int) -> None:
        there[step] = pipeline.distillation.teacher is not None
        if step == 14:
            shown["before"] = pictures(pipeline.model, trainer)
        if step == 15:
            shown["teacher"] = pictures(pipeline.distillation.teacher, trainer)

    after_each_step(trainer, note)
    before_each_step(trainer, note)
    trainer.train()
    assert torch.equal(shown["before"], shown["teacher"])
    assert [step for step, teaches in there.items() if teaches] == [15, 16, 17]
    assert counts(trainer)[-1][0::2] == (14, 1) and pipeline.model.gaussians.sh_degree == 1
    text = words(capsys)
    assert "1.00x" not in text and f"{59 / 23:.2f}x fewer bytes" in text
    assert "Teacher: the spherical harmonics of degree 3 for 3 steps" in text and "switched off at step 17" in text


@pytest.mark.parametrize("steps", [3, 0])
@pytest.mark.parametrize("target", ["teacher", "mixed", "photo"])
def test_teacher_is_in_no_checkpoint(once: Config, target: str, steps: int) -> None:
    """It would double the file, and a person who sends it would send the unpruned model."""
    options = {"sh_degree": 0, "sh_step": 12, "distil__steps": steps, "distil__target": target}
    trainer = start(saving(once(**options)))
    teaches = []
    before_each_step(trainer, lambda step: teaches.append(trainer.pipeline.distillation.teacher is not None))
    trainer.train()
    assert any(teaches) == (target != "photo" and steps > 0)

    def check(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            assert value.dim() < 3 or value.shape[1] == 0
        elif isinstance(value, dict):
            for part in value.values():
                check(part)
        elif isinstance(value, (list, tuple)):
            for part in value:
                check(part)

    for step in (12, 13, 14):
        check(checkpoint(trainer, step))


def test_only_colours_learn(once: Config) -> None:
    """With `distil.geometry False` places, shapes and opacities stay to the bit while the teacher is there, moments
    included in what Adam does with them."""
    options = {"sh_degree": 1, "sh_step": 12, "distil__steps": 3, "distil__geometry": False}
    trainer, at = start(once(**options)), {}
    model = trainer.pipeline.model
    after_each_step(trainer, lambda step: at.__setitem__(step, copies(model.gauss_params)))
    trainer.train()
    for name in NAMES:
        moved = [not torch.equal(at[step][name], at[step - 1][name]) for step in (14, 15)]
        assert moved == [name.startswith("features")] * 2, name
        assert not torch.equal(at[17][name], at[16][name]), name


def test_what_is_learned_of_each_view_stays_out_of_the_teachers_lesson(once: Config) -> None:
    """A student that is its teacher has nothing to learn, also where views have poses and colours of their own that the
    teacher's picture is made without: else Gaussians would learn to undo them."""
    options = {"target": "teacher", "loss": "l2", "share": 0.0, "steps": 3}
    config = once(sh_degree=2, sh_step=13, **{f"distil__{name}": value for name, value in options.items()})
    config.pipeline.model.camera_optimizer.mode = "SO3xR3"
    config.pipeline.model.use_bilateral_grid, config.pipeline.model.grid_shape = True, (2, 2, 2)
    trainer = start(config)
    pipeline, model = trainer.pipeline, trainer.pipeline.model
    with torch.no_grad():
        model.camera_optimizer.pose_adjustment += 0.1
        model.bil_grids.grids += 0.1
    model.step = 13
    pipeline.distillation.before_cut(
        PruneEvent(12, ScheduledEvent(12, Fraction(1), {"sh_degree": 2}), "rank", "continue", {})
    )
    camera, _ = pipeline.datamanager.next_train(13)
    lesson = pipeline.distillation.lesson(13, camera)
    assert torch.equal(lesson.camera.camera_to_worlds, camera.camera_to_worlds)
    losses = lesson.losses(model, model(lesson.camera))
    assert {name: float(loss) for name, loss in losses.items()} == {"distillation_loss": 0.0}


def test_both_events_overdue(tiny_config: Config, dense: Any) -> None:
    """A dense run that is given steps which have passed does all of it in one event: the newest does the work of both,
    and its teacher is the model of before."""
    config = tiny_config("late", strategy="rank", start_step=10, sh_step=12, pruning_ratio=0.5)
    trainer = train(resume(config, dense, LAST, 4))
    count = gaussians_of(dense)
    assert counts(trainer) == [(STEPS, round(count / 2), 2)]
    check_whole(trainer)


def test_degree_alone(once: Config) -> None:
    """Lowering the degree without removing a Gaussian, as a control of the distillation: `pruning-ratio 0`."""
    trainer = train(once(pruning_ratio=0.0, sh_degree=2, sh_step=13))
    ((step, count, degree),) = counts(trainer)
    event = trainer.pipeline.model.prune_state.history[0]
    assert (step, count, degree) == (13, event.before.parts["gaussians"], 2) == (13, gaussians_of(trainer), 2)


@pytest.mark.parametrize("given", [0, 2, 3])
def test_control_is_left_alone(once: Config, given: int, capsys: Any) -> None:
    """Strategy none is the dense control: nothing changes, and a line says of options that have no effect there."""
    trainer = train(once(strategy="none", sh_degree=given))
    assert not counts(trainer) and trainer.pipeline.model.gaussians.sh_degree == 3
    text = words(capsys)
    assert "no effect on what is planned:" in text
    assert "prune.sh_degree (goes with a strategy other than none)" in text


def test_degree_above_that_of_the_model(once: Config) -> None:
    """Asked for more than there is, a run would train to its end and have less."""
    config = once(sh_degree=3)
    config.pipeline.model.sh_degree = 2
    with pytest.raises(ValueError, match=r"prune.sh_degree 3 is above the 2 of the model; choose a lower one"):
        start(config)
    config.pipeline.prune.sh_degree = None
    config.pipeline.model.sh_degree = 0
    trainer = train(config)
    assert counts(trainer) == [(10, gaussians_of(trainer), 0)]  # the preset's degree is no request


def test_steps_of_the_degree(once: Config) -> None:
    """It comes behind the last cut, with its teacher's steps before the end."""
    for options, message in (
        ({"sh_step": 9}, "prune.sh_step 9 lies before the last event at step 10"),
        ({"sh_step": 20}, "prune.sh_step 20 lies past the end of the run, whose last step is 19"),
        ({"sh_step": 18, "distil__steps": 2}, "prune.distil.steps 2 is more than the 1 steps from prune.sh_step 18"),
        ({"distil__steps": 50}, "prune.distil.steps 50 is longer than the run"),
    ):
        with pytest.raises(ValueError, match=message):
            start(once(**{"sh_degree": 1, **options}))


# By hand


def watched(config: Any) -> Any:
    """A run that a person looks on, who may undo."""
    trainer = start(config)
    trainer.pipeline.controller._watched = True
    return trainer


def at_steps(trainer: Any, doing: dict[int, Any]) -> None:
    """Does something at the ends of steps, behind all that is due there."""
    after = trainer.callbacks[-1].where_to_run

    def act(step: int) -> None:
        if step in doing:
            doing[step](step)

    trainer.callbacks.append(type(trainer.callbacks[0])(after, act))


@pytest.mark.parametrize("strategy", ["rank", "merge"])
def test_undo_twice(once: Config, strategy: str, tmp_path: Path) -> None:
    """Back to the bit: Gaussians, moments, notes of the densification. Then another cut, and back again; the run goes
    on, and so does one from a checkpoint behind an undo."""
    trainer = watched(saving(once(strategy=strategy)))
    controller, model, found = trainer.pipeline.controller, trainer.pipeline.model, look_at(trainer, 10)
    mine = replace(controller.run.options, pruning_ratio=0.2, start_step=None)

    def back(step: int) -> None:
        controller.undo(step)
        check_whole(trainer)

    def back_at_once(step: int) -> None:
        back(step)
        assert same_bits(copies(model.gauss_params), found["parameters"])
        assert same_bits(moments(trainer), found["moments"]) and same_bits(copies(model.running), found["running"])
        controller.prune_by_hand(mine, step)
        assert model.num_points == round(len(found["parameters"]["means"]) * 0.8)
        back(step)
        assert same_bits(copies(model.gauss_params), found["parameters"])
        assert same_bits(moments(trainer), found["moments"]) and same_bits(copies(model.running), found["running"])

    again = {12: lambda step: controller.prune_by_hand(mine, step), 14: back}
    at_steps(trainer, {10: back_at_once, **again})
    trainer.train()
    assert not model.prune_state.history and model.num_points == len(found["parameters"]["means"])
    resumed = train(resume(once("resumed"), trainer, 15, 3))
    assert not counts(resumed) and gaussians_of(resumed) == model.num_points


def test_undo_of_a_lowered_degree(once: Config) -> None:
    """The coefficients that had left are there again, and the teacher, which they would be compared with, has gone."""
    trainer = watched(once(sh_degree=1, sh_step=13))
    model, pipeline, found = trainer.pipeline.model, trainer.pipeline, look_at(trainer, 13)

    def back(step: int) -> None:
        assert pipeline.distillation.teacher is not None
        pipeline.controller.undo(step)
        assert pipeline.distillation.teacher is None and model.gaussians.sh_degree == 3
        assert same_bits(copies(model.gauss_params), found["parameters"])
        assert same_bits(moments(trainer), found["moments"])

    at_steps(trainer, {13: back})
    trainer.train()
    check_whole(trainer)
    assert [step for step, *_ in counts(trainer)] == [10]


def test_degree_by_hand(once: Config) -> None:
    """Chosen in the panel, the degree is lowered with the cut, as the preview shows it, and the model of before
    teaches; an undo brings the coefficients back with their moments. A cut without that choice leaves the degree,
    though the plan will lower it, and the plan that comes to a degree that is there already skips its event."""
    trainer = watched(once(sh_degree=2, sh_step=15, start_step=12, distil__steps=2))
    pipeline, model, steering = trainer.pipeline, trainer.pipeline.model, trainer.pipeline.steering
    found, session = look_at(trainer, 10), Session(pipeline, nullcontext(), lambda: "training", lambda: 10)
    form = pipeline.controller.run.subject.form
    values = {field.name: field.value for field in form.fields(pipeline.controller.run.options)}
    values = {**values, "pruning_ratio": 0.25, "strategy": "random"}
    shown, teacher = [], []

    def cut(step: int, **own: Any) -> str:
        shown.append(session.preview({**values, **own}).after.parts)
        steering.request("prune", {**values, **own})
        steering.on_step(step)
        assert not steering.message.error and shown[-1] == pipeline.subject.sizes().parts
        check_whole(trainer)
        return steering.message.text

    def by_hand(step: int) -> None:
        first = model.num_points
        for degree in ("as it is", "1"):
            cut(step, sh_degree=degree)
            teacher.append(None if pipeline.distillation.teacher is None else pipeline.distillation.teacher.num_points)
            pipeline.controller.undo(step)
            assert pipeline.distillation.teacher is None
            assert same_bits(copies(model.gauss_params), found["parameters"])
            assert same_bits(moments(trainer), found["moments"])
        kept = round(0.75 * first)
        assert shown == [{"gaussians": kept, "sh_degree": 3}, {"gaussians": kept, "sh_degree": 1}]
        assert teacher == [None, first]
        assert "degree 3 → 1" in cut(step, sh_degree="1", pruning_ratio=0.0) and model.num_points == first
        for degree in ("1", "2"):
            with pytest.raises(ValueError, match="sh_degree must be 'as it is' or below the present 1"):
                form.options({**values, "sh_degree": degree}, pipeline.controller.run.options)

    at_steps(trainer, {10: by_hand})
    trainer.train()
    assert [(step, degree) for step, _, degree in counts(trainer)] == [(10, 1), (12, 1)]


def test_another_degree_for_the_plan(once: Config) -> None:
    """«Use cut for the plan» moves the event that lowers the degree, and refuses where none is planned: a message that
    promises it would be untrue to the end of the run."""
    trainer, told = start(once(sh_degree=2, sh_step=14, start_step=12)), []
    controller = trainer.pipeline.controller
    form = controller.run.subject.form
    values = {field.name: field.value for field in form.fields(controller.run.options)}

    def change(step: int) -> None:
        told.append(controller.retarget(form.options({**values, "sh_degree": "0"}, controller.run.options)))

    at_steps(trainer, {9: change})
    trainer.train()
    assert told[0].endswith("sh_degree 0") and [degree for *_, degree in counts(trainer)] == [3, 0]
    bare = start(once("bare", start_step=12))
    run = bare.pipeline.controller.run
    options = run.subject.form.options({**values, "sh_degree": "0"}, run.options)
    with pytest.raises(ValueError, match="no planned event changes sh_degree; it can be cut by hand"):
        bare.pipeline.controller.retarget(options)


def test_another_target_keeps_the_degree(once: Config, tmp_path: Path) -> None:
    """Chosen in the panel in mid-run, another share holds for the cuts to come; the event that lowers the degree comes
    as planned, also after resuming."""
    trainer = start(saving(once(sh_degree=2, sh_step=14, start_step=12)))
    controller = trainer.pipeline.controller
    form = controller.run.subject.form
    values = {field.name: field.value for field in form.fields(controller.run.options)}

    def change(step: int) -> None:
        told = controller.retarget(form.options({**values, "pruning_ratio": 0.25}, controller.run.options))
        assert "step 12, 14" in told

    at_steps(trainer, {10: change})
    trainer.train()
    first = trainer.pipeline.model.prune_state.history[0].before.parts["gaussians"]
    assert counts(trainer) == [(12, round(first * 0.75), 3), (14, round(first * 0.75), 2)]
    resumed = train(resume(once("resumed", start_step=None, sh_degree=None, score=None), trainer, 11, 6))
    assert counts(resumed) == counts(trainer)


def test_nothing_left_for_a_cut_by_hand(once: Config) -> None:
    """A share that is reached already changes nothing and ends nothing."""
    trainer, told = start(once()), []
    controller = trainer.pipeline.controller

    def ask(step: int) -> None:
        with pytest.raises(ValueError) as caught:
            controller.prune_by_hand(replace(controller.run.options, pruning_ratio=0.3), step)
        told.append(str(caught.value))

    at_steps(trainer, {12: ask})
    trainer.train()
    assert told == ["nothing is left to remove for this target: it is reached already"]
    assert len(counts(trainer)) == 1


# Given again


def test_another_ratio_on_a_finished_run(once: Config, capsys: Any) -> None:
    """A smaller share that stays is cut to, from the Gaussians that there were at first, and the degree that was
    lowered is not lowered again; a larger one brings nothing back and takes nothing away."""
    first = train(once(sh_degree=2, sh_step=13))
    before = first.pipeline.model.prune_state.history[0].before.parts["gaussians"]
    same = train(resume(once("same", sh_degree=2, sh_step=None), first, LAST, 2))
    assert counts(same) == counts(first)
    more = train(resume(once("more", sh_degree=2, pruning_ratio=0.8), first, LAST, 4))
    assert counts(more) == [*counts(first), (STEPS, round(before * 0.2), 2)]
    capsys.readouterr()
    less = train(resume(once("less", sh_degree=2, pruning_ratio=0.5), first, LAST, 4))
    assert counts(less) == counts(first) and "skipped: nothing is left to remove" in words(capsys)


def test_lower_degree_on_a_finished_run(once: Config) -> None:
    """The degree can be lowered further later on."""
    first = train(once(sh_degree=2, sh_step=13))
    later = train(resume(once("later", sh_degree=0), first, LAST, 6))
    assert [event[2] for event in counts(later)] == [3, 2, 0] and counts(later)[-1][1] == gaussians_of(first)
    check_whole(later)
