from pathlib import Path

import pytest

from condswin.errors import BadDataError
from condswin.sources import place


def test_objects_keep_their_place_below_the_prefix():
    assert place(Path("in"), "singlecoil_train/a..b.h5") == Path("in/singlecoil_train/a..b.h5")


@pytest.mark.parametrize("key", ["../a.h5", "a/../../b.h5", "/etc/a.h5", "a/.."])
def test_no_key_leads_out_of_the_folder(key):
    with pytest.raises(BadDataError, match="lead out of the folder"):
        place(Path("in"), key)
