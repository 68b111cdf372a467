"""The pruning panel of Nerfstudio's viewer. Imported only where there is a viewer; nothing below knows of it."""
