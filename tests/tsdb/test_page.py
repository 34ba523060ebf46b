from __future__ import annotations
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tsdb import page
from tsdb.select import STALE_BITS
from tests.tsdb.samplestrategies import any_bits
@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(any_bits,max_size=30),max_size=5))
def test_rt(streams):
    off=np.cumsum([0,*map(len,streams)]).astype(np.int64)
    bits=np.array([b for s in streams for b in s],dtype=np.uint64)
    raw=page.decompress(page.encode_floats(off,bits),"t")
    assert page.stream_counts(raw,"t").tolist()==[len(s) for s in streams]
    out=np.empty(len(bits),np.uint64)
    page.decode_into(raw,np.arange(len(streams)),off[:-1].copy(),np.diff(off),out,True,"t")
    assert out.tolist()==bits.tolist()
