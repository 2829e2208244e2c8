"""What tests of kernels share: every instruction set in turn, bits to compare, and how many examples are tried."""

import os

import numpy as np
from hypothesis import settings

from ufbert import cmm

MORE = {"nightly": 10, "few": 0.2}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 1)


def examples(count, **options):
    """Settings of a test with `count` examples; ten times as many in the profile "nightly", a fifth in "few"."""
    return settings(max_examples=max(1, int(count * MORE)), deadline=None, **options)


def on_every_isa():
    """Use every instruction set of this machine in turn, then again the one in use before."""
    before = cmm.active_isa()
    for name in cmm.supported_isas():
        cmm.use_isa(name)
        yield name
    cmm.use_isa(before)


def bits(array):
    """Integers, so that NaN equals itself and -0 does not equal 0; all NaNs alike."""
    array = np.where(np.isnan(array), np.nan, array).astype(array.dtype)
    return array.view(np.int32)
