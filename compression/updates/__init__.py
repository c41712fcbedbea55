"""Model updates as few bytes: what devices send up in a federated round, and what comes down.

    from headwater.compression.updates import Layout, Scheme, decode, encode

docs/updates.md has the byte layout and what each scheme is good for.
"""

from headwater.compression.updates.codec import Encoded, Update, decode, encode
from headwater.compression.updates.layout import Layout
from headwater.compression.updates.scheme import Scheme

__all__ = ["Encoded", "Layout", "Scheme", "Update", "decode", "encode"]
