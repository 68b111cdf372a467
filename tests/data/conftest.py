"""What the tests of this room share: a clean host after every test."""

from support.host_fixtures import clean_host, one_thread  # noqa: F401
