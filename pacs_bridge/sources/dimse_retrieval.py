"""The images of one series from an archive over associations: all of it, then what is missing.

An archive sends as much as it can, and an association may break: whatever came stays, and only
the images that are missing are asked for again, by their UIDs (PS3.4 C.4.2.2.1, C.4.3.2.1, level
IMAGE; C.2.2.2.2 for lists of UIDs). An archive that does not retrieve by image is asked for the
series once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pydicom.dataset import Dataset

from inference.reasons import Reason
from pacs_bridge.errors import BridgeError, TransientError
from pacs_bridge.sources.received_series import ReceivedSeries, WantedSeries
from pacs_bridge.sources.sub_operations import SubOperations

#: UIDs in one request: 3 KiB of them.
_IMAGES_A_REQUEST = 50
#: Where more are missing the series is asked for, in one request.
_MOST_IMAGES = 500
#: How a request fails that may have brought all the same what was missing.
_OF_A_REQUEST = (Reason.SOURCE_UNREACHABLE, Reason.SOURCE_REFUSED, Reason.SOURCE_INCOMPLETE)


class Retrieve(Protocol):
    """One C-GET or C-MOVE."""

    def __call__(self, identifier: Dataset, asked: Callable[[], None], /) -> SubOperations:
        """Ask for what an identifier names; calls ``asked`` when the request was sent."""
        ...


class DimseRetrieval:
    """Retrieves one series, in as many attempts as are made. For one thread.

    Parameters
    ----------
    wanted
        With the UIDs of its images.
    series
        Takes the images.
    request
        Takes what one identifier names.
    name
        Of the archive, in errors.
    """

    def __init__(
        self,
        wanted: WantedSeries,
        series: ReceivedSeries,
        request: Retrieve,
        name: str,
    ) -> None:
        self._wanted = wanted
        self._expected = wanted.sop_instance_uids or frozenset()
        self._series = series
        self._request = request
        self._name = name
        self._gives_images = True  #: whether to ask for images, as far as is known
        self._was_asked = False  #: whether the last request was sent
        self._told = SubOperations()

    def attempt(self) -> None:
        """Take what is missing still; however a request ends, what came with it counts.

        Raises
        ------
        TransientError
            ``source-incomplete`` if some is missing yet, and as ``request``.
        PermanentError
            As ``request``.
        """
        try:
            if self._missing() and not self._took_images():
                self._told = self._asked_for("SERIES")
        except TransientError as error:
            if self._missing() or error.reason not in _OF_A_REQUEST:
                raise
        if missing := self._missing():
            raise TransientError(
                Reason.SOURCE_INCOMPLETE,
                f"{self._name}: {len(missing)} of {len(self._expected)} instances did not"
                f" come (sub-operations: {self._told}): {missing[:3]}",
            )

    def _took_images(self) -> bool:
        """Ask for the missing images, if that will do; False if the series is to be asked for."""
        missing = self._missing()
        is_small_part = len(missing) < min(len(self._expected), _MOST_IMAGES + 1)
        if not self._gives_images or not is_small_part:
            return False
        for first in range(0, len(missing), _IMAGES_A_REQUEST):
            images = missing[first : first + _IMAGES_A_REQUEST]
            try:
                self._told = self._asked_for("IMAGE", images)
            except BridgeError as error:
                if error.reason is Reason.SOURCE_REFUSED and not isinstance(error, TransientError):
                    return False
                raise
            finally:
                if self._was_asked:
                    self._gives_images = bool(self._series.sop_instance_uids & set(images))
            # it knows no such level, or no lists, and need not say how many it has sent
            if not (self._gives_images or self._told.has_any):
                return False
        self._gives_images = True
        return True

    def _missing(self) -> list[str]:
        return sorted(self._expected - self._series.sop_instance_uids)

    def _asked_for(self, level: str, images: list[str] | None = None) -> SubOperations:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        identifier.StudyInstanceUID = self._wanted.study_instance_uid
        identifier.SeriesInstanceUID = self._wanted.series_instance_uid
        if images is not None:
            identifier.SOPInstanceUID = images
        self._was_asked = False
        return self._request(identifier, self._note_asked)

    def _note_asked(self) -> None:
        self._was_asked = True
