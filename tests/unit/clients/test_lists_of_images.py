"""CSV, JSON lines and COCO as lists of images, and what the classes of a list become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocelli_client.image_files import FileLocation
from ocelli_import.coco import read_coco
from ocelli_import.listing import ClassRules, Listing, ListingError, RemoteImage
from ocelli_import.tables import TableOptions, read_csv, read_json_lines

USUAL = TableOptions()


def classes(listing: Listing) -> dict[str, str | None]:
    """The class of each image, by its name."""
    return {image.place.name: image.class_name for image in listing.images}


def csv(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    table = csv(tmp_path, "id,Image_Path,Split,Label\n1,cats/a.jpg,train,cat\n2,b.jpg,test,dog\n")
    assert classes(read_csv(table, USUAL)) == {"cats/a.jpg": "cat", "b.jpg": "dog"}


def test_other_columns_are_named_by_options(tmp_path: Path) -> None:
    table = csv(tmp_path, "where,what\na.jpg,cat\n")
    options = TableOptions(path_column="where", class_column="what")
    assert classes(read_csv(table, options)) == {"a.jpg": "cat"}


def test_two_columns_need_no_names(tmp_path: Path) -> None:
    assert classes(read_csv(csv(tmp_path, "a.jpg,cat\nb.png,dog\n"), USUAL)) == {"a.jpg": "cat", "b.png": "dog"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_spreadsheets_of_all_countries_are_read(tmp_path: Path, delimiter: str) -> None:
    table = csv(tmp_path, f'\ufefffile{delimiter}class\r\n"a, b.jpg"{delimiter}Größe\r\n')
    assert classes(read_csv(table, USUAL)) == {"a, b.jpg": "Größe"}


def test_paths_are_relative_to_the_list_or_to_the_folder_of_images(tmp_path: Path) -> None:
    table = csv(tmp_path, "file,class\na.jpg,cat\n")
    places = [read_csv(table, options).images[0].place for options in (USUAL, TableOptions(images=tmp_path / "images"))]
    assert [place.path for place in places if isinstance(place, FileLocation)] == [
        tmp_path / "a.jpg",
        tmp_path / "images" / "a.jpg",
    ]


def test_names_in_zips_never_lead_out_of_them(tmp_path: Path) -> None:
    table = csv(tmp_path, "file,class\n../up/a.jpg,cat\n/absolute/b.jpg,cat\n")
    assert list(classes(read_csv(table, USUAL))) == ["a.jpg", "b.jpg"]


def test_addresses_are_downloaded_and_other_schemes_refused(tmp_path: Path) -> None:
    (image,) = read_csv(csv(tmp_path, "url,class\nhttps://example.com/a%20b.jpg?size=1,cat\n"), USUAL).images
    assert image.place == RemoteImage(
        key="https://example.com/a%20b.jpg?size=1", url="https://example.com/a%20b.jpg?size=1", name="a b.jpg"
    )
    with pytest.raises(ListingError, match=r"list\.csv, line 2: an address of gs:// is not http or https"):
        read_csv(csv(tmp_path, "url,class\ngs://bucket/a.jpg,cat\n"), USUAL)


def test_an_image_with_several_classes_is_left_out_and_counted(tmp_path: Path) -> None:
    listing = read_csv(csv(tmp_path, "file,class\na.jpg,cat\na.jpg,dog\nb.jpg,cat\nb.jpg,cat\n"), USUAL)
    assert classes(listing) == {"b.jpg": "cat"}
    assert listing.notices == (
        "Left out, because Ocelli learns one class for each image: 1 image with several classes: a.jpg (cat, dog)",
    )


def test_rows_without_a_class_are_counted(tmp_path: Path) -> None:
    listing = read_csv(csv(tmp_path, "file,class\na.jpg,cat\nb.jpg,\nc.jpg\n"), USUAL)
    assert (classes(listing), listing.notices) == ({"a.jpg": "cat"}, ("Left out: 2 rows without a class: b.jpg, c.jpg",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows; list a path and a class in each"),
        ("name,kind\na.jpg,cat\n", "has none of the columns path, .*; name one of name, kind with --path-column"),
        ("file,kind\na.jpg,cat\n", "has none of the columns class, .*; name one of file, kind with --class-column"),
        ("file,class\n,cat\n", 'line 2: there is nothing in "file"; name a file or an address'),
        ("file,class\na.jpg,cat, big\n", "line 2 has 3 cells, and the first line 2; put names with a comma into quotation"),
    ],
    ids=["empty", "no path", "no class", "empty path", "comma"],
)
def test_a_csv_that_cannot_be_used_says_where_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ListingError, match=message):
        read_csv(csv(tmp_path, text), USUAL)


def test_a_column_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ListingError, match='has no column "klass"; it has file, class'):
        read_csv(csv(tmp_path, "file,class\na.jpg,cat\n"), TableOptions(class_column="klass"))


def test_a_list_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("file,class\na.jpg,Größe\n".encode("latin-1"))
    with pytest.raises(ListingError, match=r"is not UTF-8 text \(byte 19\); save it as UTF-8"):
        read_csv(tmp_path / "list.csv", USUAL)


def test_a_list_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListingError, match=r"lost\.csv cannot be read: No such file or directory"):
        read_csv(tmp_path / "lost.csv", USUAL)


def test_json_lines_have_a_path_and_a_class(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"path": "a.jpg", "class": "cat", "width": 4}\n\n{"class": "7", "path": "b.jpg"}\n')
    assert classes(read_json_lines(path, USUAL)) == {"a.jpg": "cat", "b.jpg": "7"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("path: a.jpg", r"line 1 is not JSON \(.*\); write one object in each line"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"path": "http://[::1", "class": "cat"}', "line 1: the address is not valid; correct it"),
        ('["a.jpg", "cat"]', 'line 1 is not an object; write lines such as {"path": "a.jpg", "class": "cat"}'),
        ('{"path": "a.jpg", "class": ["cat", "dog"]}', 'line 1: "class" is not a text'),
    ],
    ids=["no JSON", "deep", "no address", "no object", "several classes"],
)
def test_a_json_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(line)
    with pytest.raises(ListingError, match=message):
        read_json_lines(tmp_path / "list.jsonl", USUAL)


def coco(folder: Path, annotations: list[dict[str, Any]], **images: Any) -> Path:
    """A COCO file with the images 1 to 3 (`a.jpg` to `c.jpg`) and the categories cat (1) and dog (2)."""
    document = {
        "images": [{"id": number, "file_name": f"{name}.jpg", **images} for number, name in enumerate("abc", start=1)],
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations)],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path


def test_the_category_of_a_coco_image_is_its_class(tmp_path: Path) -> None:
    path = coco(tmp_path, [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}])
    listing = read_coco(path)
    assert classes(listing) == {"a.jpg": "cat", "b.jpg": "dog"}
    assert listing.notices == ("Left out: 1 image without an annotation: c.jpg",)


def test_regions_are_not_cropped_which_is_said(tmp_path: Path) -> None:
    boxes = [{"image_id": image, "category_id": 1, "bbox": [0, 0, 9, 9]} for image in (1, 1, 2, 3)]
    listing = read_coco(coco(tmp_path, boxes))
    assert classes(listing) == {"a.jpg": "cat", "b.jpg": "cat", "c.jpg": "cat"}
    assert listing.notices == ("Nothing is cropped, whole images are imported: 4 annotations with a region",)


def test_a_coco_image_with_several_categories_is_left_out_and_counted(tmp_path: Path) -> None:
    pairs = [(1, 1), (1, 2), (2, 2), (3, 2)]
    listing = read_coco(coco(tmp_path, [{"image_id": image, "category_id": category} for image, category in pairs]))
    assert classes(listing) == {"b.jpg": "dog", "c.jpg": "dog"}
    assert listing.notices == (
        "Left out, because Ocelli learns one class for each image: 1 image with several classes: a.jpg (cat, dog)",
    )


def test_a_coco_image_that_is_not_here_is_downloaded_from_its_address(tmp_path: Path) -> None:
    path = coco(tmp_path, [{"image_id": 1, "category_id": 1}], coco_url="https://example.com/1.jpg")
    (remote,) = read_coco(path).images
    assert remote.place == RemoteImage(key="1", url="https://example.com/1.jpg", name="a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"here")
    assert isinstance(read_coco(path).images[0].place, FileLocation)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a COCO file: it is not an object"),
        ('{"images": [], "annotations": []}', "is not a COCO file: it has no 'categories'"),
        ('{"images": [], "categories": [], "annotations": 3}', "is not a COCO file: it is built differently"),
        ('{"images": [], "categories": [], "annotations": [{"image_id": [], "category_id": 1}]}', "it is built differently"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 8, "category_id": 1}]}',
            "an annotation refers to image 8 and category 1, and the file does not have both",
        ),
        (
            '{"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],'
            ' "annotations": [{"image_id": 1, "category_id": 1}]}',
            "image 1 has no file_name; export it again",
        ),
    ],
    ids=["cut off", "deep", "list", "no categories", "number", "list as id", "unknown image", "no name"],
)
def test_a_file_that_is_not_coco_is_refused_with_the_fact(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(ListingError, match=message):
        read_coco(tmp_path / "instances.json")


def test_a_path_that_is_too_long_is_a_file_that_is_not_found(tmp_path: Path) -> None:
    path = coco(
        tmp_path, [{"image_id": 1, "category_id": 1}], file_name="a" * 5000 + ".jpg", coco_url="https://example.org/a.jpg"
    )
    assert [image.url for image in read_coco(path).remote] == ["https://example.org/a.jpg"]


@pytest.fixture
def pets(tmp_path: Path) -> Listing:
    return read_csv(csv(tmp_path, "file,class\na.jpg,cat\nb.jpg,dog\nc.jpg,nothing\nd.jpg,golden-retriever\n"), USUAL)


def test_classes_are_renamed_left_out_and_taken_as_negative_examples(pets: Listing) -> None:
    rules = ClassRules(renames={"golden-retriever": "dog"}, skipped=frozenset({"cat"}), negatives=frozenset({"nothing"}))
    changed = rules.apply(pets)
    assert classes(changed) == {"b.jpg": "dog", "c.jpg": None, "d.jpg": "dog"}
    assert changed.notices == ("Left out with their classes (cat): 1 image",)


def test_characters_that_are_not_allowed_become_underscores_which_is_said(pets: Listing) -> None:
    changed = ClassRules().apply(pets)
    assert classes(changed)["d.jpg"] == "golden_retriever"
    assert changed.notices == (
        'Class names with characters that are not allowed: "golden-retriever" is now "golden_retriever"',
    )


def test_two_classes_do_not_become_one_by_accident(tmp_path: Path) -> None:
    listing = read_csv(csv(tmp_path, "file,class\na.jpg,a-b\nb.jpg,a_b\n"), USUAL)
    with pytest.raises(ListingError, match='The classes "a-b" and "a_b" would both be named "a_b"; rename one of them'):
        ClassRules().apply(listing)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (ClassRules(skipped=frozenset({"cats"})), 'There is no class "cats"; the classes are cat, dog, nothing, golden-retr'),
        (ClassRules(renames={"cat": "a/b"}), "The new class name \"a/b\" contains the character '/'"),
    ],
    ids=["unknown", "not allowed"],
)
def test_a_rule_that_cannot_be_applied_is_refused(pets: Listing, rules: ClassRules, message: str) -> None:
    with pytest.raises(ListingError, match=message):
        rules.apply(pets)


@pytest.mark.parametrize(
    "address", ["sftp://anna:pa55@host/a.jpg", "http://anna:pa55@\u2100/a.jpg", "http://anna:pa55@[::1/a.jpg"]
)
def test_a_password_in_an_address_of_a_list_is_never_shown(tmp_path: Path, address: str) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": address, "class": "cat"}))
    with pytest.raises(ListingError) as caught:
        read_json_lines(tmp_path / "list.jsonl", USUAL)
    assert "pa55" not in str(caught.value)
