"""Whether what a run takes can be had, in main memory and on a card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.engine.memory import available_bytes, free_bytes, free_card_bytes, gigabytes
from inference.engine.memory_need import MemoryNeed


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """What a run takes, and what there is, bytes.

    Parameters
    ----------
    main, main_free
        Of main memory; None: not known.
    card, card_free
        Of the card; None where the network runs on the CPU.
    """

    main: int
    main_free: int | None
    card: int | None = None
    card_free: int | None = None

    @property
    def is_enough(self) -> bool:
        """Whether all of it can be had, as far as is known."""
        in_main = self.main_free is None or self.main <= self.main_free
        return in_main and (self.card or 0) <= (self.card_free or 0)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """For people: of where the network runs, and for a card of main memory too."""
        main = (gigabytes(self.main), gigabytes(self.main_free))
        if self.card is None:
            return ("estimated_memory", main[0]), ("available_memory", main[1])
        return (
            ("estimated_memory", gigabytes(self.card)),
            ("available_memory", gigabytes(self.card_free)),
            ("estimated_main_memory", main[0]),
            ("available_main_memory", main[1]),
        )


@dataclass(frozen=True, slots=True)
class MemoryMeter:
    """Tells what memory there is.

    Parameters
    ----------
    main
        Main memory that can be had, bytes; None: not known.
    card
        The same of a card, as torch names it.
    """

    main: Callable[[], int | None] = available_bytes
    card: Callable[[str], int] = free_card_bytes

    def fit(
        self, device: str, needs: Sequence[MemoryNeed], *, is_read: bool, promised: int
    ) -> MemoryFit:
        """Of runs after each other, each on its own.

        Parameters
        ----------
        device
            Where the network runs, as torch names it.
        needs
            Of the runs, at least one.
        is_read
            Whether their scans are in memory already.
        promised
            Bytes of main memory that others will take.
        """
        on_card = is_card(device)
        main = max(need.main_bytes(on_card=on_card, is_read=is_read) for need in needs)
        free = free_bytes(main + promised, self.main)
        left = None if free is None else max(free - promised, 0)
        if not on_card:
            return MemoryFit(main, left)
        return MemoryFit(main, left, max(need.device for need in needs), self.card(device))


def is_card(device: str) -> bool:
    """Whether a device, as torch names it, has a memory of its own."""
    return device.split(":")[0] != "cpu"
