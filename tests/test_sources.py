import re
from pathlib import Path

import pytest

from condswin.errors import BadDataError
from condswin.sources import place


def test_objects_keep_their_place_below_the_prefix():
    assert place(Path("in"), "s3://scans/knee", "singlecoil_train/a..b.h5") == Path("in/singlecoil_train/a..b.h5")


@pytest.mark.parametrize("key", ["../a.h5", "a/../../b.h5", "/etc/a.h5", "a/.."])
def test_no_key_leads_out_of_the_folder(key):
    with pytest.raises(BadDataError, match=f"^s3://scans/knee/{re.escape(key)}: .*lead out of the folder; rename it"):
        place(Path("in"), "s3://scans/knee", key)
