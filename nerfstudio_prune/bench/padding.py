"""A field in a larger one: the same function, at the cost of the larger size."""

import torch
from nerfstudio.fields.vanilla_nerf_field import NeRFField


@torch.no_grad()
def pad_into(small: NeRFField, large: NeRFField) -> None:
    """Gives a field the function of a smaller one: its weights, and zeros around them.

    A neuron with zeros alone gives relu(0) = 0 and gets no gradient, so it stays what it is in a training too.

    Args:
        small: The field; stays as it is.
        large: A field with as many layers, none of them narrower. In each of the host's layers what does not come from
            neurons (the encodings) stands before what does, so that the columns of both fields begin alike.

    Raises:
        ValueError: If a tensor of the larger field is missing, has another number of axes, or is smaller.
    """
    own, others = dict(small.named_parameters()), dict(large.named_parameters())
    if own.keys() != others.keys():
        raise ValueError(f"expected fields of the same layers, got {sorted(own)} and {sorted(others)}")
    for name, tensor in own.items():
        shape = others[name].shape
        if len(shape) != tensor.dim() or any(a > b for a, b in zip(tensor.shape, shape, strict=True)):
            raise ValueError(f"{name}: expected at least {list(tensor.shape)}, got {list(shape)}")
    for name, tensor in own.items():
        others[name].zero_()
        others[name][tuple(slice(0, size) for size in tensor.shape)] = tensor
