"""Assertions in the modules that tests share say what they compared, as those of tests do."""

import pytest

pytest.register_assert_rewrite("registry")
