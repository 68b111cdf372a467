"""What the tests of this room share: a tiny scene, no network, and a clean host after every test."""

from support.host_fixtures import (  # noqa: F401
    clean_host,
    downloads,
    one_thread,
    scene_cache,
    stock_lpips,
    stock_state,
    tiny_config,
    torch_home,
)
