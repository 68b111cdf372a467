"""What must hold between the parts of what a file of tiny networks says, before anything is allocated for them."""

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.checks import check_bits
from nerfstudio_prune.export.kilo_schema import MAX_NETWORKS, MAX_STEPS, KiloMetadata
from nerfstudio_prune.export.schema import MAX_PARAMETERS
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.spaces import RENDERED_SPACES
from nerfstudio_prune.occupancy import MAX_CELLS


def check_kilo(metadata: KiloMetadata) -> None:
    """Checks limits, that widths ascend, and that rays have a length.

    Args:
        metadata: Values that are in their ranges, each for itself.

    Raises:
        FileFormatError: Names the value, what was expected and what was found.
    """
    grid, networks = metadata.grid, metadata.networks
    if grid.voxels > MAX_CELLS:
        raise refuse("grid", f"at most {MAX_CELLS:,} voxels", f"{grid.voxels:,}")
    widths = [own.width for own in networks.classes]
    if widths != sorted(set(widths)):
        raise refuse("networks.classes", "ascending widths", str(widths))
    if not 1 <= networks.count <= MAX_NETWORKS:
        raise refuse("networks.classes", f"1 to {MAX_NETWORKS:,} networks", f"{networks.count:,}")
    if len(networks.bits) != networks.layers + 3:
        raise refuse("networks.bits", f"{networks.layers + 3}, one for each layer", str(len(networks.bits)))
    counts = [own.count for own in networks.classes]
    for i, bits in enumerate(networks.bits):
        if not isinstance(bits, int) and [sum(own) for own in bits] != counts:
            found = [sum(own) for own in bits]
            raise refuse(f"networks.bits[{i}]", f"{counts} networks of each width", str(found))
    if metadata.parameters > MAX_PARAMETERS:
        raise refuse("metadata", f"at most {MAX_PARAMETERS:,} parameters", f"{metadata.parameters:,}")
    check_bits(metadata.layers(), metadata.storage)
    check_steps(metadata)


def check_steps(metadata: KiloMetadata) -> None:
    """Checks that rays have a length, and not too many steps in pictures either.

    Args:
        metadata: What a file says.

    Raises:
        FileFormatError: If they have not.
    """
    steps = metadata.steps
    if not steps.near < steps.far:
        raise refuse("steps", "near < far", f"near {steps.near:g}, far {steps.far:g}")
    space = RENDERED_SPACES[metadata.space]
    lattice = Lattice(steps.near, steps.far, steps.count, space.spacing)
    # Before the number is made: it can have any number of digits.
    most = lattice.near / lattice.step_size if metadata.space == "bounded" else 0.0
    if most + steps.count > MAX_STEPS:
        raise refuse("steps", f"at most {MAX_STEPS:,} from the camera on", f"{most + steps.count:.0f}")
