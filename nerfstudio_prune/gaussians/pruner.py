"""One cut of a scene and its optimizers: prepare, check, apply. All or nothing."""

from collections.abc import Mapping, MutableMapping
from dataclasses import fields
from typing import Any, Optional

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from nerfstudio_prune.core.optimizer_state import ParameterEdit, prepare_rebind
from nerfstudio_prune.core.subject import BufferEdit, PreparedEdits
from nerfstudio_prune.gaussians.selecting import check_keep
from nerfstudio_prune.raster.gaussians import Gaussians

PARAMETERS = tuple(f.name for f in fields(Gaussians))
"""Names of the six parameters, as in Nerfstudio's splatfacto."""


def check_gaussians(parameters: Mapping[str, Tensor]) -> Gaussians:
    """Checks the parameters of a scene.

    Args:
        parameters: Tensors by name.

    Returns:
        The scene, of the same tensors.

    Raises:
        ValueError: If one is missing, they are not those of the same number of Gaussians, there are none, or a value is
            not finite. Names the parameter, how many, and the first Gaussian.
    """
    missing = [name for name in PARAMETERS if name not in parameters]
    if missing:
        raise ValueError(f"a scene has the parameters {', '.join(PARAMETERS)}; {', '.join(missing)} is missing")
    counts = {name: len(parameters[name]) for name in PARAMETERS}
    if len(set(counts.values())) > 1 or not counts["means"]:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"all parameters must be those of the same Gaussians, at least one; found {told}")
    for name in PARAMETERS:
        finite = torch.isfinite(parameters[name]).flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = (~finite).nonzero()[:, 0]
            raise ValueError(
                f"{name}: {len(bad)} of {len(finite)} Gaussians have values that are not finite, the first one is "
                f"Gaussian {int(bad[0])}; nothing was pruned"
            )
    return Gaussians.of(parameters)


@torch.no_grad()
def prepare_gaussian_pruning(
    module: nn.Module,
    keep: Optional[Int64[Tensor, " kept"]],
    optimizers: Mapping[str, Optimizer],
    parameter_lists: Mapping[str, list[nn.Parameter]],
    running_state: Optional[MutableMapping[str, Any]] = None,
    *,
    sh_degree: Optional[int] = None,
    values: Optional[Gaussians] = None,
    forget: bool = False,
    path: str = "gauss_params",
) -> PreparedEdits:
    """Prepares and checks a cut without changing anything.

    Args:
        module: Module that owns the six parameters by name, such as the `nn.ParameterDict` of a splatfacto model.
        keep: Indices of the Gaussians that stay, sorted and unique. None: all.
        optimizers: Live optimizers by name.
        parameter_lists: The host's second list of the same parameters, by optimizer name; edited in place.
        running_state: What densification keeps of each Gaussian (`grad2d`, `count`, `radii`); tensors with a row per
            Gaussian are cut alike, what is None or a number stays.
        sh_degree: Degree of the spherical harmonics afterwards. None: the present one.
        values: What takes the place of the Gaussians that stay, where they are not merely kept, such as
            `Merged.gaussians`; of the present degree.
        forget: Whether the optimizers forget moments and step counters of all six.
        path: Dotted path of the module in the model, for the edits' names.

    Returns:
        Edits of those parameters that become smaller or get new values; moments are sliced row by row.

    Raises:
        ValueError: If the parameters are not those of a scene, `keep` or the degree does not fit, an optimizer does not
            know a parameter, or a tensor of the running state has another number of rows.
    """
    parameters = dict(module.named_parameters(recurse=False))
    scene = check_gaussians(parameters)
    count = len(scene)
    rows: dict[int, Tensor] = {}
    if keep is not None:
        check_keep(keep, count)
        rows = {0: keep.to(scene.means.device)}
    if values is not None:
        _check_values(values, scene, count if keep is None else len(keep))
    edits = []
    for name in PARAMETERS:
        old = parameters[name]
        kept = dict(rows)
        if name == "features_rest" and sh_degree is not None and sh_degree != scene.sh_degree:
            kept[1] = torch.arange(scene.with_sh_degree(sh_degree).features_rest.shape[1], device=old.device)
        if not kept and values is None:
            continue
        new = old.detach() if values is None else dict(values.items())[name].detach().to(old)
        for dim, index in kept.items():
            # New values have their rows already, and all of their coefficients.
            new = new if dim == 0 and values is not None else new.index_select(dim, index)
        parameter = nn.Parameter(new.clone(), requires_grad=old.requires_grad)  # training must not reach `values`
        edits.append(ParameterEdit(f"{path}.{name}", module, name, old, parameter, kept, forget=forget))
    rebind = prepare_rebind(optimizers, parameter_lists, edits)
    return PreparedEdits(edits, rebind, _running_edits(running_state, count, rows.get(0)))


def _check_values(values: Gaussians, scene: Gaussians, count: int) -> None:
    for (name, new), (_, old) in zip(values.items(), scene.items(), strict=True):
        if new.shape != (count, *old.shape[1:]):
            raise ValueError(f"{name}: new values must have shape {(count, *old.shape[1:])}, got {tuple(new.shape)}")


def _running_edits(
    state: Optional[MutableMapping[str, Any]], count: int, keep: Optional[Int64[Tensor, " kept"]]
) -> list[BufferEdit]:
    """Cuts what densification keeps of each Gaussian; a row too many would shift every later one."""
    edits = []
    for name, value in (state or {}).items():
        if not torch.is_tensor(value) or value.dim() == 0:
            continue
        if len(value) != count:
            raise ValueError(
                f"running state {name!r} of the densification has {len(value)} rows for {count} Gaussians; nothing was "
                "pruned"
            )
        if keep is not None and state is not None:
            edits.append(BufferEdit(state, name, value.index_select(0, keep.to(value.device))))
    return edits
