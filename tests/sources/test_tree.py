import io
import os
import pickle
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagitta.errors import ImageError, SourceError
from sagitta.sources.detect import open_source
from sagitta.sources.tree import ZipReader, archive_tree, folder_tree

from .conftest import image, pack, write_files

FILES = {"cat/1.png": None, "cat/2.png": None, "dog/1.png": None}


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_reader_works_in_threads_and_other_processes(tmp_path: Path, kind: str) -> None:
    location = pack(write_files(tmp_path / "given", FILES), kind)
    source = open_source(str(location), cache=tmp_path / "cache")
    paths = source.rows["path"].to_pylist() * 20
    expected = [image(0), image(1), image(2)] * 20
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.reader.read, paths)) == expected
    if kind in ("zip", "tar.gz"):
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
            assert list(processes.map(source.reader.read, paths[:6])) == expected[:6]


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "zip"])
def test_the_start_of_a_file_is_read_by_itself(tmp_path: Path, kind: str) -> None:
    location = pack(write_files(tmp_path / "given", FILES), kind)
    root = folder_tree("given", location) if kind == "folder" else archive_tree("given", location, tmp_path / "cache")
    assert root is not None
    for tree in (root, root.below("given")) if kind == "zip" else (root,):
        name = next(name for name in tree.sizes if name.endswith("cat/2.png"))
        assert tree.reader.start(name, 9) == image(1)[:9]
        assert tree.reader.start(name, 10_000) == image(1) == tree.reader.read(name)


def test_a_zip_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    found = []
    for text in (b"first", b"another"):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as packed:
            packed.writestr("a.txt", text)
        (tmp_path / "new.zip").replace(tmp_path / "data.zip")
        found.append(ZipReader(str(tmp_path / "data.zip"), {"a.txt": "a.txt"}).read("a.txt"))
    assert found == [b"first", b"another"]


def test_a_forked_process_does_not_share_a_zip_position(tmp_path: Path) -> None:
    location = pack(write_files(tmp_path / "given", FILES), "zip")
    source = open_source(str(location), cache=tmp_path / "cache")
    assert source.reader.read("cat/1.png") == image(0)
    with get_context("fork").Pool(2) as pool:
        assert pool.map(source.reader.read, ["cat/2.png", "dog/1.png"] * 50) == [image(1), image(2)] * 50


def test_a_compressed_tar_is_unpacked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    root = write_files(tmp_path / "given", FILES)
    for count, name in ((1, "dog/2.png"), (2, "dog/3.png")):
        location = pack(write_files(root, {name: None}), "tar.gz")
        for _ in range(2):
            assert open_source(str(location), cache=tmp_path / "cache").rows.num_rows == 3 + count
        assert len(list((tmp_path / "cache/archives").iterdir())) == count


def test_names_that_leave_the_archive_are_only_names(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar, zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
        for name in ("/etc/cat/1.png", "../../dog/1.png", "./bird/1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(image(0))
            tar.addfile(member, io.BytesIO(image(0)))
            packed.writestr(name, image(0))
    for kind in ("tar", "zip"):
        tree = archive_tree("evil", tmp_path / f"evil.{kind}", tmp_path)
        assert tree is not None
        assert list(tree.sizes) == ["../../dog/1.png", "bird/1.png", "etc/cat/1.png"]
        assert tree.reader.read("../../dog/1.png") == image(0)


def test_hard_links_in_a_tar_are_files(tmp_path: Path) -> None:
    root = write_files(tmp_path / "given", FILES)
    (root / "dog/9.png").hardlink_to(root / "cat/1.png")
    source = open_source(str(pack(root, "tar")), cache=tmp_path)
    assert source.rows["path"].to_pylist() == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/9.png"]
    assert source.reader.read("dog/9.png") == image(0)


def test_a_tar_cut_short_is_named(tmp_path: Path) -> None:
    location = pack(write_files(tmp_path / "given", FILES), "tar")
    source = open_source(str(location), cache=tmp_path)
    os.truncate(location, 2100)
    with pytest.raises(ImageError, match=r"given\.tar ends within this file"):
        source.reader.read("dog/1.png")
    with pytest.raises(SourceError, match=r"given\.tar"):
        open_source(str(location), cache=tmp_path)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_compressed_tar_cut_short_leaves_nothing_in_the_cache(tmp_path: Path, kind: str) -> None:
    location = pack(write_files(tmp_path / "given", {"cat/1.png": os.urandom(2_000_000)}), kind)
    os.truncate(location, location.stat().st_size // 2)
    with pytest.raises(SourceError, match=r"damaged archive .* get it again"):
        open_source(str(location), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.t*")) == []


def test_a_damaged_zip_member_is_one_bad_image(tmp_path: Path) -> None:
    location = pack(write_files(tmp_path / "given", FILES), "zip")
    data = bytearray(location.read_bytes())
    start = data.index(b"cat/2.png") + len("cat/2.png")
    data[start : start + 20] = b"\xff" * 20
    location.write_bytes(data)
    source = open_source(str(location), cache=tmp_path)
    with pytest.raises(ImageError, match=r"given\.zip does not give this file"):
        source.reader.read("cat/2.png")
    assert source.reader.read("dog/1.png") == image(2)


@pytest.mark.parametrize(
    ("kind", "at", "new"),
    [
        ("tar.bz2", 30, b"\xff" * 60),
        ("tar.gz", 60, b"\xff" * 60),
        ("tar.xz", 60, b"\xff" * 60),
        ("zip", b"PK\1\2", b"PK\1\2\x14\0\xdb\0"),  # needs version 21.9
        ("zip", b"PK\1\2", b"PK\1\2\x14\0\x14\0\0\x08\0\0\0\0\0\0" + bytes(12) + b"\xff\xff"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path: Path, kind: str, at: int | bytes, new: bytes) -> None:
    location = pack(write_files(tmp_path / "given", FILES), kind)
    data = location.read_bytes()
    start = data.index(at) if isinstance(at, bytes) else at
    location.write_bytes(data[:start] + new + data[start + len(new) :])
    with pytest.raises(SourceError, match=r"given\.[a-z0-9.]+: (damaged archive|neither|not )"):
        open_source(str(location), cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["", ".", "//"])
def test_a_member_without_a_name_is_not_seen(tmp_path: Path, kind: str, name: str) -> None:
    location = tmp_path / f"given.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(location, "w") as archive:
            archive.writestr("cat/1.png", image(1))
            archive.writestr("xy", b"data")
        location.write_bytes(location.read_bytes().replace(b"xy", name.ljust(2, "\0").encode()))
    else:
        with tarfile.open(location, "w") as tar:
            for each in ("cat/1.png", name):
                member = tarfile.TarInfo(each)
                member.size = 4
                tar.addfile(member, io.BytesIO(b"data"))
    tree = archive_tree("here", location, tmp_path)
    assert tree is not None and list(tree.sizes) == ["cat/1.png"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = write_files(tmp_path / "given", FILES)
    (root / "cat/loop").symlink_to(root)
    (root / "cat/self").symlink_to("self")
    (root / "cat/dead.png").symlink_to("nowhere.png")
    (root / "bird").symlink_to(write_files(tmp_path / "elsewhere", {"1.png": None}))
    os.mkfifo(root / "cat/pipe.png")
    source = open_source(str(root), cache=tmp_path)
    assert source.rows["path"].to_pylist() == [
        "bird/1.png", "cat/1.png", "cat/2.png", "cat/dead.png", "cat/self", "dog/1.png",
    ]  # fmt: skip


def test_names_that_are_not_unicode_are_an_error_that_names_them(tmp_path: Path) -> None:
    root = write_files(tmp_path / "given", FILES)
    (root / os.fsdecode(b"cat/caf\xe9.png")).write_bytes(image(0))
    with pytest.raises(SourceError, match=r"the name 'cat/caf\\udce9.png' is not valid UTF-8; rename that file"):
        open_source(str(root), cache=tmp_path)


names = st.lists(st.sampled_from(["a", "b b", "ç", "d.png", "..x"]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=30, deadline=None)
@given(files=st.dictionaries(names, st.binary(max_size=50), max_size=8))
def test_a_tree_is_the_same_in_every_container(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    files = {name: data for name, data in files.items() if not any(other.startswith(name + "/") for other in files)}
    root = tmp_path_factory.mktemp("same") / "given"
    root.mkdir()
    write_files(root, files)
    visible = {name: data for name, data in files.items() if "..x" not in name.split("/")}
    for kind in ("folder", "tar", "tar.gz"):
        location = pack(root, kind)
        tree = folder_tree("x", root) if kind == "folder" else archive_tree("x", location, root.parent)
        assert tree is not None
        assert tree.sizes == {name: len(visible[name]) for name in sorted(visible)}
        reader = pickle.loads(pickle.dumps(tree.reader))
        assert {name: reader.read(name) for name in tree.sizes} == visible


def test_folders_that_hold_nothing_are_listed_and_are_no_files(tmp_path: Path) -> None:
    root = write_files(tmp_path / "given", {"a/x.png": None, "b/.hidden": "x", "c/d/Thumbs.db": "x", "e/f/y.png": None})
    (root / "e" / "g" / "h").mkdir(parents=True)
    for kind in ("folder", "tar", "zip"):
        packed = pack(root, kind)
        tree = folder_tree("x", packed) if kind == "folder" else archive_tree("x", packed, tmp_path / "cache")
        assert tree is not None
        tree = tree.below("given") if kind == "zip" else tree
        assert (sorted(tree.empty), list(tree.sizes)) == (["b", "c/d", "e/g/h"], ["a/x.png", "e/f/y.png"])
        assert tree.below("e").empty == ["g/h"]
        assert tree.below("e").within.endswith("e/")


def _linked_tar(file: Path, links: dict[str, tuple[bytes, str]]) -> Path:
    """Write a tar of two images in ``cat`` and of links: name -> (type, where it leads)."""
    with tarfile.open(file, "w") as tar:
        for number in range(2):
            info = tarfile.TarInfo(f"cat/{number}.png")
            info.size = len(image(number))
            tar.addfile(info, io.BytesIO(image(number)))
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return file


def test_links_in_a_tar_are_followed_within_it(tmp_path: Path) -> None:
    links = {
        "dog/a.png": (tarfile.SYMTYPE, "../cat/0.png"),
        "dog/b.png": (tarfile.SYMTYPE, "a.png"),
        "dog/c.png": (tarfile.LNKTYPE, "cat/1.png"),
        "dog/.hidden.png": (tarfile.LNKTYPE, "cat/1.png"),
        "puss": (tarfile.SYMTYPE, "cat"),
        "cat/again": (tarfile.SYMTYPE, "."),
    }
    tree = archive_tree("linked", _linked_tar(tmp_path / "linked.tar", links), tmp_path)
    assert tree is not None
    zero, one = image(0), image(1)
    assert {name: tree.reader.read(name) for name in tree.sizes} == {
        "cat/0.png": zero, "cat/1.png": one, "dog/a.png": zero, "dog/b.png": zero, "dog/c.png": one,
        "puss/0.png": zero, "puss/1.png": one,
    }  # fmt: skip
    assert tree.sizes["dog/a.png"] == len(zero)


def test_a_member_of_a_tar_that_has_no_bytes_is_there_with_the_reason(tmp_path: Path) -> None:
    links = {
        "dog/gone.png": (tarfile.SYMTYPE, "../cat/9.png"),
        "dog/hard.png": (tarfile.LNKTYPE, "cat/9.png"),
        "dog/out.png": (tarfile.SYMTYPE, "../../etc/passwd"),
        "dog/absolute.png": (tarfile.SYMTYPE, "/etc/passwd"),
        "dog/self.png": (tarfile.SYMTYPE, "self.png"),
        "dog/x.png": (tarfile.SYMTYPE, "y.png"),
        "dog/y.png": (tarfile.SYMTYPE, "x.png"),
        "dog/pipe.png": (tarfile.FIFOTYPE, ""),
    }
    tree = archive_tree("linked", _linked_tar(tmp_path / "linked.tar", links), tmp_path)
    assert tree is not None
    assert list(tree.sizes) == sorted(["cat/0.png", "cat/1.png", *links])
    for name, (kind, target) in links.items():
        reason = "a device" if kind == tarfile.FIFOTYPE else f"a link to .*{Path(target).name}, which is not in the arc"
        with pytest.raises(ImageError, match=reason):
            tree.reader.read(name)
