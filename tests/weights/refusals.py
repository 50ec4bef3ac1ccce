"""What every refused file has in common."""

import pytest
import weight_files as wf

from netdsl.errors import WeightsError
from netdsl.weights import load


def fails(tmp_path, content, code, words=None, name="a.pth"):
    path = wf.write(tmp_path, name, content)
    with pytest.raises(WeightsError, match=words) as caught:
        tensors = load(path)
        for key in tensors:
            tensors[key]
    codes = (code,) if isinstance(code, str) else code
    assert caught.value.code in codes, str(caught.value)
    assert caught.value.path == str(path)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 1500
    return caught.value
