"""The Nerfstudio side: configuration, model, pipeline, controller and checkpoints."""
