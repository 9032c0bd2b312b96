"""The dataset with known faults, which is mended here."""

from tests.diagnosis.conftest import faulty as faulty
