"""Nerfstudio's data manager of rays, with a look at the data before anything is trained on it."""

import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, variable_res_collate
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.pixel_samplers import PixelSampler

from nerfstudio_prune.data.pixels import CountedDataset
from nerfstudio_prune.data.sampling import draw_within_masks
from nerfstudio_prune.data.views import CheckedViews


class CheckedDataManager(CheckedViews, VanillaDataManager[CountedDataset]):
    """Draws rays of the views of a data set, once they have been looked at."""

    def look(self) -> None:
        """Looks at the headers of all pictures and counts the pixels of the masks.

        Raises:
            ValueError: If a picture cannot be trained on, the masks leave nothing, or rays cannot be shared out.
        """
        self._check_batches()
        super().look()

    def setup_eval(self) -> None:
        """Loads the evaluation views."""
        if self.eval_dataset.cameras.is_jagged:  # the host looks at the training views only
            self.config.collate_fn = variable_res_collate
        super().setup_eval()

    def _check_batches(self) -> None:
        """Checks that rays can be shared out over pictures of several sizes, which the host does in pairs and not in
        patches, and that a patch fits into each."""
        train = self.train_dataset.cameras.is_jagged
        evaluation = len(self.eval_dataset) > 0 and (train or self.eval_dataset.cameras.is_jagged)
        for name, differ in (("train_num_rays_per_batch", train), ("eval_num_rays_per_batch", evaluation)):
            rays = getattr(self.config, name)
            if differ and rays % 2:
                raise ValueError(f"pipeline.datamanager.{name} must be even where pictures differ in size, got {rays}")
        patch = self.config.patch_size
        if patch > 1 and (train or evaluation):
            raise ValueError(f"pipeline.datamanager.patch_size must be 1 where pictures differ in size, got {patch}")
        for dataset in (self.train_dataset, self.eval_dataset):
            sides = torch.stack([dataset.cameras.height, dataset.cameras.width])
            if len(dataset) > 0 and patch > int(sides.min()):
                raise ValueError(
                    f"pipeline.datamanager.patch_size must be at most the pictures' smaller side, {int(sides.min())}, "
                    f"got {patch}"
                )

    def _get_pixel_sampler(self, dataset: CountedDataset, num_rays_per_batch: int) -> PixelSampler:
        sampler = super()._get_pixel_sampler(dataset, num_rays_per_batch)
        sampler.set_num_rays_per_batch(num_rays_per_batch)  # the host rounds down to patches of 32 whatever their size
        return draw_within_masks(sampler)

    def _dataset(self, outputs: DataparserOutputs) -> CountedDataset:
        dataset = super()._dataset(outputs)
        dataset.ignore_mask = self.config.pixel_sampler.ignore_mask
        return dataset
