"""The codecs of a chunk: order, positions, values, compression (SPEC.md section 7).

A codec takes arrays and bytes and returns arrays and bytes; it knows nothing of tensors, packs or files. Faults in
what it decodes raise `CodecFault`, to which the chunk adds the object's name.
"""

from .fault import CodecFault

__all__ = ["CodecFault"]
