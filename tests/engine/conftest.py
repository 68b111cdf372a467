"""What the tests of this room share that train in Nerfstudio's loop."""

from support.host_fixtures import (  # noqa: F401
    clean_host,
    downloads,
    one_thread,
    scene_cache,
    stock_lpips,
    tiny_config,
    torch_home,
)
