"""How a tiny network is built, and what it costs."""

from dataclasses import dataclass

from nerfstudio_prune.kilonerf.encoding import encoded_width

DEFAULT_DIRECTION_FREQUENCIES = 4


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of a network: encoded position -> hidden layers -> density, and with the direction -> one layer -> colour.

    As KiloNeRF (arXiv 2103.13744, figure 2), without the linear layer between trunk and colour: with no activation
    between them its product with the next one is a single matrix, of the same functions.

    Raises:
        ValueError: If a size is out of range.
    """

    hidden_width: int = 32
    """Neurons of every hidden layer, >= 1."""
    num_layers: int = 2
    """Hidden layers in front of the density, >= 1."""
    position_frequencies: int = 5
    """Frequencies of the position's encoding, >= 0."""
    direction_frequencies: int = DEFAULT_DIRECTION_FREQUENCIES
    """Frequencies of the direction's encoding, >= 0."""

    def __post_init__(self) -> None:
        sizes = (("hidden_width", self.hidden_width, 1), ("num_layers", self.num_layers, 1))
        frequencies = (
            ("position_frequencies", self.position_frequencies, 0),
            ("direction_frequencies", self.direction_frequencies, 0),
        )
        for name, value, least in (*sizes, *frequencies):
            if value < least:
                raise ValueError(f"grid.{name} must be at least {least}, got {value}")

    @property
    def position_width(self) -> int:
        """Numbers that a position is encoded as."""
        return encoded_width(self.position_frequencies)

    @property
    def direction_width(self) -> int:
        """Numbers that a direction is encoded as."""
        return encoded_width(self.direction_frequencies)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one evaluation."""
        width = self.hidden_width
        trunk = self.position_width * width + (self.num_layers - 1) * width**2
        return trunk + width + (width + self.direction_width) * width + 3 * width

    @property
    def parameters(self) -> int:
        """Weights and biases of one network."""
        return self.macs + self.num_layers * self.hidden_width + 1 + self.hidden_width + 3

    def with_width(self, hidden_width: int) -> "NetworkShape":
        """The same of another width.

        Args:
            hidden_width: Neurons of every hidden layer, >= 1.
        """
        return NetworkShape(hidden_width, self.num_layers, self.position_frequencies, self.direction_frequencies)
