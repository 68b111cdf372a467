"""Module-level state of the host that one test would leave to the next."""

from nerfstudio.utils import profiler, writer


def reset_host() -> None:
    """Forgets the module-level state that the host's writers and profilers leave behind."""
    for event_writer in writer.EVENT_WRITERS:
        if hasattr(event_writer, "tb_writer"):
            event_writer.tb_writer.close()
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    writer.GLOBAL_BUFFER.clear()
    profiler.PROFILER.clear()
