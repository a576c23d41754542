"""Names of types that go through the whole project."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]  # True where there is data
Progress = Callable[[Iterable[Any], str], Iterable[Any]]  # wraps what is gone through, and says what it is
Say = Callable[[str], None]  # takes a line for the person who waits
