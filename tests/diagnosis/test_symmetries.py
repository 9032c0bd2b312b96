import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from sagitta.diagnosis.symmetries import SYMMETRIES, WORDS, symmetric_hash, turned, turned_each, turned_spectra
from tests.diagnosis.conftest import picture, saved

WAYS = {
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "mirrored top to bottom": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 180 degrees": Image.Transpose.ROTATE_180,
    "turned by 90 degrees": Image.Transpose.ROTATE_90,
    "turned by 90 degrees and mirrored": Image.Transpose.TRANSPOSE,
}


@pytest.mark.parametrize("words", WAYS)
def test_words_say_what_was_done_and_the_digest_stays(words: str) -> None:
    image = picture(1).crop((0, 0, 50, 30))
    other = image.transpose(WAYS[words])
    grey, wanted = np.asarray(image.convert("L")), np.asarray(other.convert("L"))
    assert words in {WORDS[each] for each in SYMMETRIES if np.array_equal(turned(grey, each), wanted)}
    assert symmetric_hash(saved(image, "PNG")) == symmetric_hash(saved(other, "PNG"))
    assert symmetric_hash(saved(image, "PNG")) != symmetric_hash(saved(picture(2).crop((0, 0, 50, 30)), "PNG"))


def test_all_symmetries_differ_and_each_image_has_its_own() -> None:
    image = np.asarray(picture(1).convert("L"))
    every = turned_each(np.stack([image] * 8), np.arange(8))
    assert len({view.tobytes() for view in every}) == 8 and np.array_equal(every[0], image)
    assert all(np.array_equal(every[each], turned(image, each)) for each in SYMMETRIES)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_spectra_turn_as_their_images_do(symmetry: int) -> None:
    image = np.asarray(picture(1).convert("L"), np.float64)
    assert np.allclose(turned_spectra(dctn(image), symmetry), dctn(turned(image, symmetry)))
