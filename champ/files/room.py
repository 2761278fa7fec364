"""How much memory the values of a file may take."""

from .errors import DamagedError

TIMES = 3  # the size of the file
MORE = 96 << 20  # bytes


class Room:
    """What is left for values that are unpacked or built from a file of `size` bytes; each is paid for before it is
    made."""

    def __init__(self, size: int):
        self.left = TIMES * size + MORE

    def pay(self, price: int) -> None:
        self.left -= price
        if self.left < 0:
            raise DamagedError("it would take far more memory than its size")
