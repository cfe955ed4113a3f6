from dataclasses import dataclass

from data_gen.utils.process_video.part_store import PartStore


@dataclass
class Word:
    text: str

    def save(self, path):
        path.write_text(self.text)


def test_finished_parts_are_known_again_and_read_back(tmp_path):
    store = PartStore(tmp_path / "parts", "key")
    store.save(512, Word("b"))
    store.save(0, Word("a"))
    (tmp_path / "parts" / "00001024.tmp.npz").write_text("half")
    again = PartStore(tmp_path / "parts", "key")
    assert again.starts() == [0, 512]
    assert [again.has(start) for start in (0, 512, 1024)] == [True, True, False]
    assert again.load(512, lambda path: path.read_text()) == "b"


def test_parts_of_something_else_are_deleted(tmp_path):
    PartStore(tmp_path / "parts", "key").save(0, Word("a"))
    assert PartStore(tmp_path / "parts", "other").starts() == []
    assert PartStore(tmp_path / "parts", "key").starts() == []


def test_parts_go_when_their_whole_is_written(tmp_path):
    store = PartStore(tmp_path / "parts", "key")
    store.save(0, Word("a"))
    store.delete()
    assert not (tmp_path / "parts").exists()
