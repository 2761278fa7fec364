"""The memory budget for the values of a file."""

from .errors import DamagedError

TIMES = 3  # the size of the file
MORE = 96 << 20  # bytes


class Room:
    """The memory left for values from a file of `size` bytes; each value is charged before it is made."""

    def __init__(self, size: int):
        self.left = TIMES * size + MORE

    def pay(self, price: int) -> None:
        self.left -= price
        if self.left < 0:
            raise DamagedError("it would take far more memory than its size")
