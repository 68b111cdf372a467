"""`ns-prune report`: one page that needs nothing else, the same every time, and README tables that cannot go stale."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tyro
from support.record_factory import CPU, GPU, dense, everything, run, save, speed

from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.command import Report

SECTIONS = ["What was measured", "Presets and recipes", "What the comparisons say", "The paper's tables"]
SECTIONS += ["Quality against size and time", "Speed", "Other libraries", "Layers and scores", "Renderings"]
SECTIONS += ["All comparisons"]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.resources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "action", "background") or (name == "href" and tag != "a"):
                self.resources.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), "no scripts"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All suites with pictures."""
    return save(everything(seeds=(1, 2)), tmp_path_factory.mktemp("records"), images=True)


@pytest.fixture(scope="module")
def report(records: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the report by path."""
    folder = tmp_path_factory.mktemp("report")
    Report(records, folder).main()
    return contents(folder)


def test_page_needs_nothing_else(report: dict[str, bytes]) -> None:
    """It is opened from disk, without a network: pictures are in it, and names point into it."""
    text = report["index.html"].decode()
    page = Page(text)
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags
    assert page.resources and all(value.startswith(("data:image/png;base64,", "#")) for value in page.resources)
    outside = {link for link in page.links if not link.startswith("#")}
    assert outside == {"https://arxiv.org/abs/2504.00950"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"url\((?!#)|@import|https?://(?!arxiv)", text)
    assert page.tags.count("svg") == 7 and page.tags.count("figure") == page.tags.count("figcaption") == 7


def test_page_follows_scheme_and_printer(report: dict[str, bytes]) -> None:
    """And has a table of contents with all sections, in order."""
    text = report["index.html"].decode()
    assert (
        "@media (prefers-color-scheme: dark)" in text
        and "@media print" in text
        and "image-rendering: pixelated" in text
    )
    contents_list = text[text.index("<nav") : text.index("</nav>")]
    assert re.findall(r">\d+\. (.*?)</a>", contents_list) == SECTIONS
    assert text.count('<div class="scroll"') == text.count("<table>") > 10
    assert 'style="text-align: right;"' in text


def test_page_opens_with_one_figure_and_five_sentences(report: dict[str, bytes]) -> None:
    """Whoever reads only the first screen has seen what was won, against what and at which price."""
    text = report["index.html"].decode()
    opening = text[text.index("<header>") : text.index("</header>")]
    assert opening.count("<svg") == 1 and opening.count("<li>") == 5 and "<table" not in opening
    assert text.index("</header>") < text.index("<nav") < text.index("<main>") < text.index("<table")
    assert report["report.md"].decode().split("\n\n")[1].endswith("](plots/front.svg)")


def test_the_caption_of_a_plot_is_taken_out_of_the_text(report: dict[str, bytes]) -> None:
    """It stands below the plot, once, with its markup; the paragraphs around it stay."""
    text, plain = report["index.html"].decode(), report["report.md"].decode()
    for caption in re.findall(r"\.svg\)\n\n\*(.*)\*\n", plain):
        assert text.count(f"<figcaption>{caption[:40]}") == 1 and f"<em>{caption[:40]}" not in text
    assert "plots/" not in text and "<p></p>" not in text


def test_markdown_refers_to_files_that_are_there(report: dict[str, bytes]) -> None:
    """Text is the same as on the page, plots and pictures lie beside it."""
    text = report["report.md"].decode()
    assert re.findall(r"^## \d+\. (.*)$", text, re.MULTILINE) == SECTIONS
    named = set(re.findall(r"\]\((plots/[^)]+)\)", text)) | set(re.findall(r'src="(images/[^"]+)"', text))
    assert named == set(report) - {"report.md", "index.html"}
    assert all(report[name].startswith(b"\x89PNG") for name in named if name.endswith(".png"))


def test_same_records_give_the_same_bytes(report: dict[str, bytes], records: Path, tmp_path: Path) -> None:
    """So that a report can be compared with the one before."""
    Report(records, tmp_path / "again").main()
    assert contents(tmp_path / "again") == report


def test_missing_sections_name_their_suite(tmp_path: Path) -> None:
    """A report of a few records is short, not broken."""
    save([dense(), run()], tmp_path / "records")
    Report(tmp_path / "records", tmp_path / "out").main()
    text = (tmp_path / "out/report.md").read_text()
    sections = dict(zip(SECTIONS, re.split(r"^## \d+\. .*$", text, flags=re.MULTILINE)[1:], strict=True))
    assert sections["Speed"].strip() == "No records for this; `ns-prune bench speed` makes them."
    assert sections["Presets and recipes"].strip() == "No records for this; `ns-prune bench ablation` makes them."
    assert sections["Other libraries"].strip() == "No records for this; `ns-prune bench peers` makes them."
    assert "images are not kept with the records" in sections["Renderings"]
    assert "\n### Table 4" in sections["The paper's tables"] and "Table 1" not in sections["The paper's tables"]
    Page((tmp_path / "out/index.html").read_text())
    save([speed()], tmp_path / "speed")
    Report(tmp_path / "speed", tmp_path / "out").main()
    text = (tmp_path / "out/report.md").read_text()
    assert "`ns-prune bench paper` makes them" in text and "`ns-prune bench frontier` makes them" in text


def test_two_devices(tmp_path: Path) -> None:
    """It is said at the top; every table is of one device; quality has a table across."""
    save([dense(1), run(), speed()], tmp_path / "records/cpu")
    save([dense(1, machine=GPU), run(machine=GPU), speed(machine=GPU)], tmp_path / "records/gpu")
    Report(tmp_path / "records", tmp_path / "out").main()
    text = (tmp_path / "out/report.md").read_text()
    assert "**The records come from 2 devices (A: Some GPU 80GB; B: Some Processor, 2 threads).**" in text
    assert "no ratio mixes two" in text and "### The same arms on several devices" in text
    assert text.count("### A: demo-data, scale cpu, Some GPU 80GB") == 6  # claims twice, paper, frontier, speed, layers
    assert "\n#### Table 4" in text  # below the heading of its device
    for part in re.split(r"^###? ", text, flags=re.MULTILINE):
        if part.startswith(("A:", "B:")):
            assert set(re.findall(r"\| ([AB]) \|$", part, re.MULTILINE)) <= {part[0]}
    page = Page((tmp_path / "out/index.html").read_text())
    assert len(page.ids) == len(set(page.ids))


def test_busy_machines_have_a_footnote(tmp_path: Path) -> None:
    """A mark without its meaning helps nobody, nor does the meaning without a mark."""
    calm = run()
    save([calm], tmp_path / "calm")
    Report(tmp_path / "calm", tmp_path / "out").main()
    assert "†" not in (tmp_path / "out/report.md").read_text()
    calm.seconds.train_cpu = 0.5 * calm.seconds.train * CPU.threads
    save([calm], tmp_path / "busy")
    Report(tmp_path / "busy", tmp_path / "out").main()
    text = (tmp_path / "out/report.md").read_text()
    # Below both tables that have times of it.
    assert text.count("\n† The machine was busy") == 2 and text.count(" † |") == 2


def test_names_from_records_are_no_markup(tmp_path: Path) -> None:
    """The page of a foreign record runs nothing and loads nothing."""
    evil = '<img src="https://x.example/a.png" onerror="alert(1)">|**x**[y](javascript:alert(1))`</svg>'
    save([run(scene=evil, scale=evil, strategy=evil, score=evil)], tmp_path / "records/evil")
    record = next((tmp_path / "records/evil/runs").iterdir())
    record.write_text(
        record.read_text().replace('"arm": "coreset-0.5"', '"arm": "<img src=x onerror=alert(1)>`</svg>"')
    )
    Report(tmp_path / "records", tmp_path / "out").main()
    page = Page((tmp_path / "out/index.html").read_text())
    assert page.open == [] and "img" not in page.tags
    assert all(link.startswith(("#", "https://arxiv.org/")) for link in page.links)


def test_damaged_and_foreign_records(tmp_path: Path) -> None:
    """The error names the file, and nothing is written."""
    save([run()], tmp_path / "records")
    bad = tmp_path / "records/runs/bad.json"
    for content in (b'{"kind": "run", "schem', b'{"a": 1}', b"\xff\xfe"):
        bad.write_bytes(content)
        with pytest.raises(RecordError, match=re.escape(str(bad))):
            Report(tmp_path / "records", tmp_path / "out").main()
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no records"):
        Report(tmp_path / "empty", tmp_path / "out").main()


def test_folder_that_is_none(tmp_path: Path) -> None:
    """Somebody who mistyped the folder must not go looking for what is wrong with the records."""
    (tmp_path / "file").touch()
    for name, found in (("nowhere", "does not exist"), ("file", "is a file")):
        with pytest.raises(ValueError, match=rf"{name}: {found}; expected a folder of records"):
            Report(tmp_path / name, tmp_path / "out").main()


def test_times_of_zero(tmp_path: Path) -> None:
    """A speed-up by what took no time is infinite, and a table would say so."""
    record = speed()
    record.pruned.image_seconds[0] = 0.0
    save([record], tmp_path / "records")
    with pytest.raises(RecordError, match=r"\.json: holds times or rates that are not above 0"):
        Report(tmp_path / "records", tmp_path / "out").main()


def test_report_that_cannot_be_written(tmp_path: Path) -> None:
    """Half of a report, and a README with numbers of another one, are worse than none: the last file in the way leaves
    all others, the Markdown files included, as they were."""
    save([run()], tmp_path / "records")
    page, path = tmp_path / "README.md", tmp_path / "out/index.html"
    page.write_text(readme("frontier"))
    path.mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"the report cannot be written, no file was changed: .*index\.html is a folder"
    ):
        Report(tmp_path / "records", tmp_path / "out", readme=(page,)).main()
    assert page.read_text() == readme("frontier")
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == []


def readme(*names: str) -> str:
    parts = [f"<!-- ns-prune report: {n} begin -->\nSTALE\n<!-- ns-prune report: {n} end -->\n" for n in names]
    return "# Title\n\nText before.\n" + "\nBetween.\n".join(parts) + "\nText after.\n"


NAMES = ("headline", "frontier", "paper", "speed", "peers", "claims")


def test_readme_tables(records: Path, tmp_path: Path) -> None:
    """What is between the markers becomes the tables, all else stays, and a second time nothing changes."""
    path = tmp_path / "README.md"
    path.write_text(readme(*NAMES))
    Report(records, tmp_path / "out", readme=(path,)).main()
    text = path.read_text()
    assert "STALE" not in text and text.startswith("# Title\n\nText before.\n<!--") and text.endswith("\nText after.\n")
    for name, content in (
        ("headline", "| `dense` | "),
        ("frontier", "| `dense` |"),
        ("paper", "| 4 | coreset, 0.5 of the width left | 21.3 |"),
        ("speed", "| 0.5 | "),
        ("peers", "| Torch-Pruning | taylor |"),
        ("claims", "- A coreset ends clearly "),
    ):
        begin, end = (text.index(f"<!-- ns-prune report: {name} {kind} -->") for kind in ("begin", "end"))
        assert content in text[begin:end] and "demo-data, scale cpu, Some Processor, 2 threads" in text[begin:end]
        # GitHub reads a table only behind an empty line.
        assert text[begin:end].split("-->\n")[1].startswith("\n") and text[begin:end].endswith("\n\n")
    Report(records, tmp_path / "out", readme=(path,), check=True).main()
    Report(records, tmp_path / "out", readme=(path,)).main()
    assert path.read_text() == text


def test_stale_tables_fail_the_check(records: Path, tmp_path: Path) -> None:
    """It names the table, and writes nothing."""
    path = tmp_path / "README.md"
    path.write_text(readme(*NAMES))
    Report(records, tmp_path / "out", readme=(path,)).main()
    fresh = path.read_text()
    assert fresh.count("| Torch-Pruning | taylor |") == 1
    path.write_text(fresh.replace("| Torch-Pruning | taylor |", "| Torch-Pruning | Taylor |"))
    stale = path.read_bytes()
    with pytest.raises(ValueError, match=r"README\.md: peers: not what the records say"):
        Report(records, tmp_path / "new", readme=(path,), check=True).main()
    assert path.read_bytes() == stale and not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="--check needs --readme"):
        Report(records, tmp_path / "new", check=True).main()


def test_several_files(records: Path, tmp_path: Path) -> None:
    """A check names every stale file and its tables; a wrong marker in the last leaves the first as it is."""
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text(readme("speed"))
    second.write_text(readme("peers", "paper"))
    with pytest.raises(ValueError, match=r"first\.md: speed; \S+second\.md: peers, paper: not what the records say"):
        Report(records, tmp_path / "out", readme=(first, second), check=True).main()
    Report(records, tmp_path / "out", readme=(first, second)).main()
    Report(records, tmp_path / "out", readme=(first, second), check=True).main()
    first.write_text(readme("speed"))
    second.write_text(readme("nonsense"))
    with pytest.raises(ValueError, match=r"second\.md:4: unknown table 'nonsense'"):
        Report(records, tmp_path / "out", readme=(first, second)).main()
    assert "STALE" in first.read_text()
    with pytest.raises(ValueError, match=r"--readme \S+third\.md: cannot be read"):
        Report(records, tmp_path / "out", readme=(first, tmp_path / "third.md")).main()


def test_readme_without_records_of_a_kind(tmp_path: Path) -> None:
    """The place stays, with a line that says what is missing."""
    save([dense()], tmp_path / "records")
    path = tmp_path / "README.md"
    path.write_text(readme("speed"))
    Report(tmp_path / "records", tmp_path / "out", readme=(path,)).main()
    assert "No records for this; `ns-prune bench speed` makes them." in path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (readme("nonsense"), r"README\.md:4: unknown table 'nonsense'; the tables are summary, headline, early"),
        ("<!-- ns-prune report: speed begin -->\n", r"README\.md:1: table 'speed' begins and does not end"),
        ("x\n<!-- ns-prune report: speed end -->\n", r"README\.md:2: end of table 'speed' without its begin"),
        (
            "<!-- ns-prune report: speed begin -->\n<!-- ns-prune report: paper end -->\n",
            "end of table 'paper' without its begin",
        ),
        (
            "<!-- ns-prune report: speed begin -->\n<!-- ns-prune report: paper begin -->\n",
            r"README\.md:2: table 'paper' begins before 'speed' ends",
        ),
    ],
)
def test_wrong_markers(records: Path, tmp_path: Path, text: str, message: str) -> None:
    """Nothing is written, neither the file nor a report."""
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Report(records, tmp_path / "out", readme=(path,)).main()
    assert path.read_text() == text and not (tmp_path / "out").exists()


def test_line_ends_of_the_readme_stay(records: Path, tmp_path: Path) -> None:
    """Only what is between the markers is ours."""
    path = tmp_path / "README.md"
    path.write_bytes(b"a\r\nb\n" + readme("speed").encode())
    Report(records, tmp_path / "out", readme=(path,)).main()
    assert path.read_bytes().startswith(b"a\r\nb\n# Title\n")


def test_command_line() -> None:
    """The folder of records is positional."""
    parsed = tyro.cli(Report, args=["records", "--output", "x", "--readme", "README.md", "docs/a.md", "--check"])
    assert parsed == Report(Path("records"), Path("x"), (Path("README.md"), Path("docs/a.md")), True)
    assert tyro.cli(Report, args=["records"]) == Report(Path("records"))
