"""The version stands once, in version.hpp; every other place has to say the same."""

import importlib.metadata
import re

import pytest

import adafactor
import sources


def text(name):
    return (sources.ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def version():
    return re.search(
        r'#define ADAFACTOR_VERSION "([^"]+)"', text("include/adafactor/compiler/abi.hpp")
    ).group(1)


def test_the_installed_package_is_this_version(version):
    assert importlib.metadata.version("adafactor") == version
    assert adafactor.__version__ == version
    assert adafactor.build_info()["version"] == version


def test_the_documents_speak_of_this_version(version):
    assert re.search(r"^## ([0-9][^\s]*)", text("CHANGELOG.md"), re.MULTILINE).group(1) == version
    assert re.search(r"^version: (.*)$", text("CITATION.cff"), re.MULTILINE).group(1) == version
