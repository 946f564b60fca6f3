"""Raw files of segmentation: pairs of NIfTI volumes."""

from pathlib import Path

from condswin.ct.cases import check_case, find_cases
from condswin.ct.config import SegmentationConfig
from condswin.tasks.source import Case, CaseInfo, Found, Source


class SegmentationSource(Source):
    """LiTS's or MSD's files."""

    def find_cases(self, source: Path) -> Found:
        """Lists LiTS or MSD pairs."""
        return find_cases(source, self.config.section(SegmentationConfig).ingest)

    def check_case(self, case: Case) -> CaseInfo:
        """Reads both files and checks that they are a usable pair."""
        return check_case(case, self.config.section(SegmentationConfig).ingest)


PART = SegmentationSource
