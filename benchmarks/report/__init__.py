"""What results look like: figures, tables and one self-contained HTML page.

Rows are mappings with at least ``codec`` and ``bits_per_value``. Used where present: ``family`` (settings of one codec
share a line), ``ours`` (drawn on top, in bold), ``bound_fraction``, ``bound_ratio``, ``psnr_db``,
``bits_per_value_with_model``, ``model_bytes``, ``encode_mbs``, ``decode_mbs``.
"""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
