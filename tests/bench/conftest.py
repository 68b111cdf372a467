"""Fixtures of this room's tests; none of them is used where it is not named."""

from support.bench_fixtures import bench_cache, bench_host, peers, recorded  # noqa: F401
from support.host_fixtures import stock_lpips  # noqa: F401
